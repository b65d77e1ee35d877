"""A step whose loss is not finite changes nothing; the run stops before it, or goes on without."""

import itertools
import json

import jax
import numpy as np
import pytest

from nanochat_jax.checkpoint import store
from nanochat_jax.config.paths import checkpoints
from nanochat_jax.train import metrics, not_finite, setup, trace
from tests.train.test_loop import STEPS, files, losses, train
from tests.train.test_trace import base, run  # noqa: F401

BAD = 3


@pytest.fixture
def weighted(monkeypatch):
    """Runs with weights of their own for every token; those of a step may be nan."""
    place = setup.Trainer.place

    def program(directory, bad=None, saved=None, **settings):
        # The first rows are placed once more before: for them the step is compiled.
        number = itertools.count((saved.step if saved else 0) - 1)

        def placed(trainer, rows):
            weight = np.nan if next(number) == bad else 1 / rows.inputs.size
            weights = np.full(rows.inputs.shape, weight, np.float32)
            return place(trainer, rows._replace(weights=weights))

        monkeypatch.setattr(setup.Trainer, "place", placed)
        train(directory, saved=saved, **settings)

    return program


def optimizer(folder):
    leaves = jax.tree.leaves(store.Saved(folder, {}).optimizer())
    return [np.asarray(x).tobytes() for x in leaves]


@pytest.mark.parametrize("mesh", ["1", pytest.param("data=2,fsdp=2", marks=pytest.mark.slow)])
def test_a_run_stops_with_the_step_before_it_and_goes_on_from_there(tmp_path, weighted, mesh):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    weighted(whole, mesh=mesh, save_every="1", keep="last=9")
    with pytest.raises(not_finite.NotFinite, match=r"step 3 .*--on-nan skip"):
        weighted(parts, BAD, mesh=mesh, save_every="-1")
    saved = store.find(parts)
    assert (saved.step, saved.loader) == (BAD, {"n": 4 * BAD})
    assert files(saved.path) == files(whole / saved.path.name)
    assert optimizer(saved.path) == optimizer(whole / saved.path.name)
    weighted(parts, mesh=mesh, saved=saved, save_every="-1")
    assert files(parts / "000006") == files(whole / "000006")
    assert losses(parts) == losses(whole)


def test_a_step_that_is_left_out_changes_neither_parameters_nor_moments(tmp_path, weighted):
    weighted(tmp_path, BAD, save_every="1", keep="last=9", on_nan="skip")
    before, after = (tmp_path / f"{step:06d}" for step in (BAD, BAD + 1))
    assert files(before) == files(after) and optimizer(before) == optimizer(after)
    assert files(after) != files(tmp_path / f"{BAD + 2:06d}")
    assert [step for step, _ in losses(tmp_path)] == [n for n in range(STEPS) if n != BAD]
    lines = metrics.read(tmp_path / "metrics.jsonl")
    assert [e for e in lines if "train/skipped" in e] == [{"step": BAD, "train/skipped": 1}]
    assert store.find(tmp_path).meta["loop"]["skipped"] == 1
    told = json.loads((tmp_path / not_finite.FOLDER / f"{BAD:06d}.json").read_text())
    assert told["loss"] == "nan"


def test_before_anything_was_learned_nothing_is_saved(tmp_path, weighted):
    with pytest.raises(not_finite.NotFinite, match="step 0"):
        weighted(tmp_path, 0, save_every="1", keep="last=9")
    assert not store.steps(tmp_path)


def test_its_documents_are_written_down(run, base):  # noqa: F811
    # A rate that no model survives: its first update is finite, the loss after that is not.
    with pytest.raises(not_finite.NotFinite) as stopped:
        run("base", "--embedding-lr=1e30", "--matrix-lr=1e30", "-g=hot")
    folder = checkpoints(base, "base") / "hot"
    (file,) = (folder / not_finite.FOLDER).iterdir()
    assert str(file) in str(stopped.value)
    step = int(file.stem)
    assert store.find(folder).step == step
    found = trace.trace("base", step, base, "hot")
    want = [p for row in range(len(found.rows)) for p in found.traced(row)]
    listed = json.loads(file.read_text())["documents"]
    assert [d["origin"] for d in listed] == [p.origin._asdict() for p in want]
    assert [d["text"] for d in listed] == [p.text for p in want] and listed
