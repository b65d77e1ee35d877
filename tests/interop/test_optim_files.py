"""nanochat's optimizer files, of one rank and of several, in both layouts: read as written."""

import numpy as np
import pytest

from nanochat_jax.checkpoint import store
from nanochat_jax.interop import optim_files, torchfile
from nanochat_jax.interop.names import from_nanochat
from tests.interop.nanochat_files import state_of, take


def whole_optimizer(state, seed=1):
    """Random AdamW and Muon buffers in our layout, of a model with nanochat's keys."""
    rng = np.random.default_rng(seed)
    draw = lambda a: rng.normal(size=a.shape).astype(np.float32)
    params = from_nanochat(state)
    adam = {k: v for k, v in params.items() if not k.startswith("h_")}
    muon = {k: v for k, v in params.items() if k.startswith("h_")}
    tree = lambda t: {k: tree(v) if isinstance(v, dict) else draw(v) for k, v in t.items()}
    return {
        "step": np.int32(7),
        "adam": {"exp_avg": tree(adam), "exp_avg_sq": tree(adam)},
        "muon": {"momentum_buffer": tree(muon)},
    }


RATES = (
    lambda key: dict(kind="adamw", lr=1.0, betas=(0.8, 0.95), eps=1e-10, weight_decay=0.0),
    dict(kind="muon", lr=0.02, momentum=0.95, ns_steps=5),
)


def equal(a, b) -> bool:
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(equal(a[k], b[k]) for k in a)
    return np.array_equal(a, b)


@pytest.mark.parametrize("layout", ["pair", "single"])
@pytest.mark.parametrize("era", ["A", "B", "C", "E"])
def test_an_optimizer_file_is_read_as_it_was_written(era, layout):
    state = state_of(era)
    shapes = {k: v.shape for k, v in state.items()}
    whole = whole_optimizer(state)
    assert equal(
        optim_files.read([optim_files.write(whole, shapes, layout, *RATES)], shapes), whole
    )


def split_single(file, ranks):
    """What each of several ranks would have saved: slices of tables, shares of stacks."""
    for rank in range(ranks):
        part = {"param_groups": file["param_groups"], "state": {}}
        for index, buffers in file["state"].items():
            part["state"][index] = dict(buffers)
            for name, value in buffers.items():
                if isinstance(value, np.ndarray) and value.ndim == 3:
                    share = -(-len(value) // ranks)
                    padded = np.pad(value, ((0, share * ranks - len(value)), (0, 0), (0, 0)))
                    part["state"][index][name] = padded[rank * share : (rank + 1) * share]
                elif isinstance(value, np.ndarray) and value.size >= 1024:
                    part["state"][index][name] = np.split(value, ranks)[rank]
        yield part


def test_the_files_of_several_ranks_are_put_together():
    state = state_of("E")
    shapes = {k: v.shape for k, v in state.items()}
    whole = whole_optimizer(state)
    file = optim_files.write(whole, shapes, "single", *RATES)
    parts = list(split_single(file, 4))
    assert equal(optim_files.read(parts, shapes), whole)
    with pytest.raises(optim_files.Incomplete):
        optim_files.read(parts[:2], shapes)


@pytest.mark.parametrize("ranks", [1, 2, 4, 8])
def test_each_rank_gets_the_file_that_it_would_have_saved(ranks):
    state = state_of("E")
    shapes = {k: v.shape for k, v in state.items()}
    file = optim_files.write(whole_optimizer(state), shapes, "single", *RATES)
    for ours, theirs in zip(
        optim_files.shares(file, ranks), split_single(file, ranks), strict=True
    ):
        assert equal(ours["state"], theirs["state"])
        assert ours["param_groups"] == theirs["param_groups"]


def test_ranks_that_do_not_divide_a_table_are_refused():
    state = state_of("E")
    shapes = {k: v.shape for k, v in state.items()}
    file = optim_files.write(whole_optimizer(state), shapes, "single", *RATES)
    with pytest.raises(ValueError, match="7 ranks do not divide"):
        next(optim_files.shares(file, 7))


def test_muons_of_several_ranks_each_hold_some_matrices():
    state = state_of("A")
    shapes = {k: v.shape for k, v in state.items()}
    whole = whole_optimizer(state)
    adam, muon = optim_files.write(whole, shapes, "pair", *RATES)
    parts = []
    for rank in range(2):
        tables = {
            i: {k: v if v.ndim == 0 else np.split(v, 2)[rank] for k, v in s.items()}
            for i, s in adam["state"].items()
        }
        mine = {i: s for i, s in muon["state"].items() if i % 2 == rank}
        parts.append([{**adam, "state": tables}, {**muon, "state": mine}])
    assert equal(optim_files.read(parts, shapes), whole)


def test_rank_0s_file_alone_is_left_with_a_warning(theirs, base, caplog):
    state = state_of("A")
    shapes = {k: v.shape for k, v in state.items()}
    adam, muon = optim_files.write(whole_optimizer(state), shapes, "pair", *RATES)
    for buffers in adam["state"].values():
        buffers |= {k: v[:150] for k, v in buffers.items() if v.ndim}
    folder = theirs / "base_checkpoints/d3"
    torchfile.save(folder / "optim_000007.pt", [adam, muon])
    path, lines = take(theirs)
    assert not store.find(path).has_optimizer
    assert "rank 0's part alone" in caplog.text and "without the optimizer's state" in lines[1]
