"""A run that goes on in other passes or on other devices: the same rows, nearly the same loss."""

import shutil

import jax
import numpy as np
import pytest

from nanochat_jax import pipeline
from nanochat_jax.checkpoint import store
from nanochat_jax.config.paths import checkpoints
from nanochat_jax.train import curriculum, metrics, trace
from nanochat_jax.train.step import mean_weights
from tests.kills import process, world
from tests.train.tiny_chain import write_base

# Answers of unequal lengths: the weight of a row depends on those it is averaged with.
CHATS = [[{"role": "user", "content": f"Is {n} more?"},
          {"role": "assistant", "content": "Yes. " * (n % 4 + 1)}] for n in range(40)]  # fmt: skip
MORE = """\
num_iterations = 6
save_every = 2
total_batch_size = 256
muon_dtype = "float32"
[mid]
num_iterations = 6
save_every = 2
total_batch_size = 256
mixture = ["conversations"]
[sft]
num_iterations = 6
save_every = 2
total_batch_size = -1
target_examples_per_step = 8
eval_metrics_every = -1
mixture = ["conversations"]
"""
ROWS = 8  # of a step


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A base directory with text, chats and a tokenizer; micro-batches of two rows."""
    root = tmp_path_factory.mktemp("base")
    write_base(root, MORE, [range(2100), range(2100)])
    return root


@pytest.fixture
def run(base, monkeypatch):
    """Runs a stage; gives the rows of each step as the device had them."""
    monkeypatch.setenv("NANOCHAT_BASE_DIR", str(base))

    def program(stage, *argv):
        given, real = [], curriculum._stack
        monkeypatch.setattr(curriculum, "_stack", lambda *a: given.append(real(*a)) or given[-1])
        config = pipeline.configure(stage, [f"--config={base / 'c.toml'}", *argv])
        pipeline.run(stage, config)
        monkeypatch.setattr(curriculum, "_stack", real)
        return [step.inputs.reshape(ROWS, -1) for step in given], [s.inputs.shape for s in given]

    if not (base / "tokenizer").exists():
        pipeline.run("tokenizer", pipeline.configure("tokenizer", [f"--config={base / 'c.toml'}"]))
    return program


def losses(base, stage):
    lines = metrics.read(checkpoints(base, stage) / "d1" / "metrics.jsonl")
    return [line["train/loss"] for line in lines if "train/loss" in line]


def meta(base, stage):
    return store.find(checkpoints(base, stage) / "d1").meta


def goes_on(run, base, stage, *flags):
    """Runs a stage whole; then from step 2 on in passes of 4, from 4 on in passes of 1."""
    whole, _ = run(stage, "--mesh=1", *flags)
    curve, prints = losses(base, stage), meta(base, stage)["fingerprint"]
    for step, rows in ((2, 4), (4, 1)):
        on = [f"--resume-from-step={step}", f"--device-batch-size={rows}", "--mesh=2"]
        parts, shapes = run(stage, *on, *flags)
        assert {shape[1] for shape in shapes} == {rows * 2}
        for one, other in zip(whole[step:], parts, strict=True):
            np.testing.assert_array_equal(one, other)
        np.testing.assert_allclose(losses(base, stage), curve, rtol=2e-5)
        assert meta(base, stage)["fingerprint"] == prints
    return whole


@pytest.mark.parametrize("flags", [
    [], pytest.param(["--loader=bestfit"], marks=pytest.mark.slow),
    pytest.param(["--loader-ranks=2"], marks=pytest.mark.slow),
])  # fmt: skip
def test_base_goes_on_with_other_rows_a_pass_in_the_same_order_of_data(run, base, flags):
    whole = goes_on(run, base, "base", *flags)
    found = trace.trace("base", 5, base)  # from a checkpoint of the run in other passes
    np.testing.assert_array_equal([row[0] for row in found.rows], whole[5])


@pytest.mark.slow
def test_mid_and_sft_go_on_with_other_rows_a_pass_with_the_same_data_and_weights(run, base):
    run("base", "--mesh=1")
    goes_on(run, base, "mid")
    goes_on(run, base, "sft")
    goes_on(run, base, "sft", "--packing=bestfit")


def test_micro_batches_that_reach_over_passes_weigh_what_they_did(key):
    targets = np.array(jax.random.randint(key, (4, 6, 5), -3, 9))
    targets[0, :2] = -1
    whole = np.asarray(mean_weights(targets.reshape(1, 24, 5), 4))
    for passes in (2, 4, 8):  # of 12, 6 and 3 rows
        parts = mean_weights(targets.reshape(passes, -1, 5), 4)
        np.testing.assert_array_equal(np.asarray(parts).reshape(whole.shape), whole)


def test_another_order_of_data_is_refused_with_the_reason(run, base):
    run("base", "--mesh=1")
    on = ["--mesh=1", "--resume-from-step=2"]
    with pytest.raises(ValueError, match="3 rows is no whole number of micro-batches of 2 rows"):
        run("base", *on, "--total-batch-size=96", "--device-batch-size=1")
    with pytest.raises(ValueError, match="set --device-batch-size to one of 1, 2, 4, 8"):
        run("base", *on, "--device-batch-size=3")
    for flag, said in (("--loader=bestfit", "began with loader stream"),
                       ("--loader-ranks=2", "began with loader_ranks 1")):  # fmt: skip
        with pytest.raises(ValueError, match=said):
            run("base", *on, flag)


@pytest.mark.slow
def test_a_whole_run_goes_from_eight_devices_to_one_and_on_to_four(tmp_path):
    file, root, tokenizer = tmp_path / "c.toml", tmp_path / "base", ["--stage=tokenizer"]
    root.mkdir()
    text = world.SETTINGS.replace('mesh = "1"', "").replace("size = 384", "size = 768")
    file.write_text(text.replace("device_batch_size = 2", "device_batch_size = 1"))

    def program(*flags):
        ended = process.train(root, [f"--config={file}", *flags], tmp_path / "log")
        assert ended.code == 0, process.tail(tmp_path / "log")

    program(*tokenizer)
    on = lambda devices: ["--stage=base", f"--mesh={devices}", "--simulate-devices"]
    program(*on(8), "--loader=bestfit", "--muon-dtype=float32", "--keep=all")
    eight = shutil.copytree(checkpoints(root, "base"), tmp_path / "eight") / "d1"
    program(*on(1), "--resume-from-step=2", "--device-batch-size=8")
    program(*on(4), "--resume-from-step=4", "--device-batch-size=2")
    found = checkpoints(root, "base") / "d1"
    for step in (4, 6, 8):  # positions in the data, to the document
        assert store.find(found, step).loader == store.find(eight, step).loader
    curve = lambda path: [e["train/loss"] for e in metrics.read(path / "metrics.jsonl")
                          if "train/loss" in e]  # fmt: skip
    np.testing.assert_allclose(curve(found), curve(eight), rtol=2e-5)
    one, other = (store.find(path, 8) for path in (eight, found))
    close = lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-5, atol=1e-5)
    for a, b in ((one.params(), other.params()), (one.optimizer(), other.optimizer())):
        jax.tree.map(close, a, b)
