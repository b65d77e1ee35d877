"""The loop: what a stopped and resumed run leaves is what an uninterrupted one leaves."""

import dataclasses
import itertools
import json
import os
import pathlib
import signal
import threading
import time

import jax
import numpy as np
import pytest

from nanochat_jax import sharding, stopping
from nanochat_jax.checkpoint import store
from nanochat_jax.config.gpt import GPTConfig
from nanochat_jax.config.optim import OptimConfig
from nanochat_jax.config.stages import BaseTrain
from nanochat_jax.data import waiting
from nanochat_jax.data.batch import MicroBatch
from nanochat_jax.train import loop, metrics, setup, stages
from nanochat_jax.train.curriculum import Curriculum, loader_rows
from nanochat_jax.train.hooks import Hook
from nanochat_jax.train.origin import Origin

CFG = GPTConfig(sequence_len=8, vocab_size=32, n_layer=1, n_head=1, n_kv_head=1, n_embd=16)
STEPS = 6


class Counting:
    """An endless loader of made-up micro-batches, whose position is the number it has given."""

    def __init__(self, end: int | None = None):
        self.end = end

    def __iter__(self):
        return CountingIterator(self.end)


class CountingIterator:
    def __init__(self, end):
        self.n, self.end = 0, end

    def __iter__(self):
        return self

    def __next__(self):
        rows = np.random.default_rng(self.n).integers(0, 32, (1, 9)).astype(np.int32)
        self.n += 1
        last = self.end is not None and self.n >= self.end
        return MicroBatch(rows[:, :-1], rows[:, 1:], last=last)

    def get_state(self):
        return {"n": self.n}

    def set_state(self, state):
        self.n = state["n"]


class StandInTokenizer:
    hash = "stand-in"


def train(directory, *, mesh="1", saved=None, steps=STEPS, hooks=(), loader=None, **settings):
    """Runs the program's own step and loop on made-up rows, four micro-batches a step."""
    defaults = dict(device_batch_size=1, max_seq_len=8, save_every=2, eval_every=-1, seed=1)
    config = BaseTrain(**(defaults | settings), num_iterations=STEPS, total_batch_size=32)
    mesh = sharding.make_mesh(mesh)
    rows = loader_rows(loader or Counting(), 4, 4 // mesh.size, steps)
    run = setup.Run(
        stage="base", config=config, directory=directory, tokenizer=StandInTokenizer(),
        trainer=setup.trainer(config, CFG, mesh, steps=STEPS),
        curriculum=Curriculum("", steps, rows, tuple(hooks)), start=Origin(resumed=saved),
    )  # fmt: skip
    return loop.train(run, run.first_state())


def files(step_dir):
    """The arrays of a checkpoint as bytes."""
    saved = store.Saved(step_dir, {})
    leaves = jax.tree_util.tree_leaves_with_path(saved.params())
    return {jax.tree_util.keystr(k): np.asarray(v).tobytes() for k, v in leaves}


def losses(directory):
    lines = metrics.read(directory / "metrics.jsonl")
    return [(e["step"], e["train/loss"]) for e in lines if "train/loss" in e]


@pytest.mark.parametrize("mesh", ["1", "4", pytest.param("data=2,fsdp=2", marks=pytest.mark.slow)])
def test_a_resumed_run_ends_with_the_same_bytes(tmp_path, mesh):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    train(whole, mesh=mesh)
    train(parts, mesh=mesh, steps=4)
    train(parts, mesh=mesh, saved=store.find(parts, 2))
    assert files(whole / "000006") == files(parts / "000006")
    assert losses(whole) == losses(parts) and len(losses(whole)) == STEPS


@pytest.mark.slow
@pytest.mark.parametrize("mesh", ["2", "4", "data=2,fsdp=2"])
def test_the_loss_does_not_depend_on_the_mesh(tmp_path, mesh):
    exact = OptimConfig(muon_dtype="float32")  # bfloat16 would make much of a last bit
    train(tmp_path / "one", save_every=-1, optim=exact)
    train(tmp_path / "many", save_every=-1, optim=exact, mesh=mesh)
    one, many = losses(tmp_path / "one"), losses(tmp_path / "many")
    np.testing.assert_allclose(many, one, rtol=2e-5)


@pytest.mark.slow
@pytest.mark.parametrize(("first", "then"), [("4", "data=2,fsdp=2"), ("data=1,fsdp=4", "1")])
def test_a_run_goes_on_on_another_mesh_with_the_same_state(tmp_path, first, then):
    exact = OptimConfig(muon_dtype="float32")
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    train(whole, mesh=first, optim=exact)
    train(parts, mesh=first, optim=exact, steps=4)
    saved = store.find(parts, 4)
    config = BaseTrain(num_iterations=STEPS, total_batch_size=32, max_seq_len=8)
    other = setup.trainer(config, CFG, sharding.make_mesh(then), steps=STEPS)
    places = other.state
    for read, like in ((saved.params, places.params), (saved.optimizer, places.opt_state)):
        jax.tree.map(np.testing.assert_array_equal, jax.device_get(read(like)), read())
    train(parts, mesh=then, optim=exact, saved=saved)
    np.testing.assert_allclose(losses(parts), losses(whole), rtol=2e-5)


def test_ctrl_c_saves_and_the_rest_is_as_if_nothing_had_happened(tmp_path):
    def interrupt(model, step):
        if step == 3 and not pressed:
            pressed.append(step)
            signal.raise_signal(signal.SIGINT)
            threading.Event().wait()  # an evaluation that takes long
        return {}

    pressed: list[int] = []
    hooks = [Hook(1, interrupt)]
    train(tmp_path / "whole", save_every=-1)
    with pytest.raises(loop.Interrupted) as stop:
        train(tmp_path / "parts", hooks=hooks, save_every=-1)
    assert stop.value.code == 130
    saved = store.find(tmp_path / "parts")
    assert not saved.meta["final"]
    train(tmp_path / "parts", saved=saved, hooks=hooks, save_every=-1)
    assert files(tmp_path / "whole" / "000006") == files(tmp_path / "parts" / "000006")
    assert losses(tmp_path / "whole") == losses(tmp_path / "parts")


class Stalling(Counting):
    """A loader that never gives its 10th micro-batch, and is asked to stop while it is awaited."""

    def __iter__(self):
        return StallingIterator(self.end)


class StallingIterator(CountingIterator):
    def __next__(self):
        if self.n == 9:
            signal.raise_signal(signal.SIGTERM)
            threading.Event().wait()
        return super().__next__()


def test_a_run_that_waits_for_data_stops_where_it_is(tmp_path):
    train(tmp_path / "whole", save_every=-1)
    with pytest.raises(loop.Interrupted) as stop:
        train(tmp_path / "parts", loader=Stalling(), save_every=-1)
    assert stop.value.code == 143
    saved = store.find(tmp_path / "parts")
    assert (saved.step, saved.loader) == (2, {"n": 8})  # of the third step one was given
    train(tmp_path / "parts", saved=saved, save_every=-1)
    assert files(tmp_path / "whole" / "000006") == files(tmp_path / "parts" / "000006")


class Failing(Counting):
    """A loader whose 10th micro-batch cannot be read."""

    def __iter__(self):
        return FailingIterator(self.end)


class FailingIterator(CountingIterator):
    def __next__(self):
        if self.n == 9:
            raise ValueError("shard_00003.parquet is gone")
        return super().__next__()


def test_what_was_learned_before_the_data_failed_is_saved(tmp_path):
    train(tmp_path / "whole", save_every=-1)
    with pytest.raises(ValueError, match="shard_00003.parquet is gone"):
        train(tmp_path / "parts", loader=Failing(), save_every=-1)
    saved = store.find(tmp_path / "parts")
    assert (saved.step, saved.loader) == (2, {"n": 8})
    train(tmp_path / "parts", saved=saved, save_every=-1)
    assert files(tmp_path / "whole" / "000006") == files(tmp_path / "parts" / "000006")


class SlowIterator(CountingIterator):
    def __next__(self):
        if self.n == 9:
            with waiting.reading(pathlib.Path("shard_00003.parquet")):
                time.sleep(0.5)
        return super().__next__()


def test_a_run_that_waits_for_data_says_for_which_file(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(stopping, "SLOW_S", 0.1)
    monkeypatch.setattr(Counting, "__iter__", lambda self: SlowIterator(self.end))
    train(tmp_path, save_every=-1)
    (line,) = [m for m in caplog.messages if m.startswith("waiting")]
    assert "waiting for data for 0 s: reading shard_00003.parquet for 0 s" == line


def test_a_run_stopped_in_its_last_step_is_evaluated_when_it_goes_on(tmp_path, monkeypatch):
    seen: list[int] = []
    hooks = [Hook(100, lambda model, step: seen.append(step) or {}, first=False)]
    write = metrics.MetricsWriter.write

    def interrupting(writer, step, values):
        write(writer, step, values)
        if step == STEPS - 2:  # logged while the device makes the last one
            signal.raise_signal(signal.SIGTERM)
            time.sleep(0.5)

    with monkeypatch.context() as patch, pytest.raises(loop.Interrupted):
        patch.setattr(metrics.MetricsWriter, "write", interrupting)
        train(tmp_path, hooks=hooks, save_every=-1)
    saved = store.find(tmp_path)
    assert (saved.step, saved.meta["final"], seen) == (STEPS, False, [])
    train(tmp_path, saved=saved, hooks=hooks, save_every=-1)
    assert seen == [STEPS] and store.find(tmp_path).meta["final"]


def test_before_the_first_step_there_is_nothing_to_save(tmp_path):
    def interrupt(model, step):
        signal.raise_signal(signal.SIGTERM)
        threading.Event().wait()

    with pytest.raises(loop.Interrupted):
        train(tmp_path, hooks=[Hook(1, interrupt)])
    assert not store.steps(tmp_path)


def test_what_is_due_runs_at_its_steps_and_at_the_end(tmp_path):
    seen: list[tuple[str, int]] = []
    note = lambda name: lambda model, step: seen.append((name, step)) or {}
    hooks = [
        Hook(4, note("first"), first=True),
        Hook(4, note("later"), first=False),
        Hook(-1, note("never")),
    ]
    train(tmp_path, hooks=hooks, save_every=-1)
    assert seen == [("first", 0), ("first", 4), ("later", 4), ("first", 6), ("later", 6)]


def failing(model, step):
    raise ZeroDivisionError(f"no tokens at {step}")


def test_a_step_is_on_disk_before_it_is_evaluated_and_its_scores_are_added(tmp_path):
    def look(model, step):
        seen[step] = store.steps(tmp_path), store.find(tmp_path).meta if step else {}
        return {"val/bpb": 1.0 / (1 + step)}

    seen: dict[int, tuple] = {}
    train(tmp_path, hooks=[Hook(2, look)], save_every=2)
    assert [steps[-1:] for steps, _ in seen.values()] == [[], [2], [4], [6]]
    assert seen[6][1]["final"] and not seen[6][1]["loop"]["evaluated"]
    saved = store.find(tmp_path)
    store.verify(saved)
    assert saved.meta["metrics"]["val/bpb"] == 1 / 7 and saved.meta["loop"]["evaluated"]
    assert saved.meta["loop"]["best_bpb"] == 1 / 7


def test_an_evaluation_that_fails_is_told_and_counted_and_the_run_goes_on(tmp_path, caplog):
    hooks = [Hook(3, failing, name="bits per byte"), Hook(3, lambda *_: {"score": 1.0})]
    done = train(tmp_path, hooks=hooks, save_every=-1)
    saved = store.find(tmp_path)
    assert done.step == STEPS and saved.meta["loop"]["failed"] == 3
    assert saved.meta["metrics"]["score"] == 1.0
    assert stages.common_figures(done)["Evaluations that failed"] == 3
    told = [line for line in caplog.text.splitlines() if "failed" in line]
    assert "bits per byte at step 6 failed" in told[-1] and "ZeroDivisionError" in told[-1]
    assert "Traceback" not in caplog.text
    assert (tmp_path / "failures.log").read_text().count("Traceback") == 3


def test_strict_ends_the_run_at_an_evaluation_that_fails_with_the_step_saved(tmp_path):
    with pytest.raises(ZeroDivisionError):
        train(tmp_path, hooks=[Hook(-1, failing), Hook(4, failing, first=False)], strict=True)
    assert store.steps(tmp_path) == [2, 4]
    store.verify(store.find(tmp_path))


def test_a_run_that_died_in_its_last_evaluations_makes_them_up_and_trains_nothing(tmp_path):
    score = Hook(-1, lambda model, step: {"score": 2.0})
    dying = dataclasses.replace(score, every=9, run=failing, first=False)
    train(tmp_path / "whole", hooks=[dataclasses.replace(dying, run=score.run)])
    with pytest.raises(ZeroDivisionError):
        train(tmp_path / "parts", hooks=[dying], strict=True)
    before = (tmp_path / "parts" / "000006" / "params" / "_METADATA").stat().st_mtime_ns
    saved = store.find(tmp_path / "parts")
    train(tmp_path / "parts", hooks=[dataclasses.replace(dying, run=score.run)], saved=saved)
    after = (tmp_path / "parts" / "000006" / "params" / "_METADATA").stat().st_mtime_ns
    assert before == after and losses(tmp_path / "whole") == losses(tmp_path / "parts")
    lines = [metrics.read(tmp_path / name / "metrics.jsonl")[-1] for name in ("whole", "parts")]
    assert lines[0] == lines[1] == {"step": 6, "score": 2.0}
    assert store.find(tmp_path / "parts").meta["metrics"]["score"] == 2.0


def test_a_run_saves_by_the_clock_and_keeps_what_it_is_told_to(tmp_path):
    train(tmp_path / "clock", save_every="0.0001s", keep="all")
    assert store.steps(tmp_path / "clock") == [1, 2, 3, 4, 5, 6]
    train(tmp_path / "later", save_every="2h")
    assert store.steps(tmp_path / "later") == [6]
    train(tmp_path / "few", save_every=1, keep="last=1,every=3")
    assert store.steps(tmp_path / "few") == [3, 6]
    assert files(tmp_path / "clock" / "000003") == files(tmp_path / "few" / "000003")


def test_ctrl_c_waits_for_the_save_that_is_in_flight(tmp_path, monkeypatch):
    def slowly(part, path):
        if path.name == "000002":
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.5)
        replace(part, path)

    replace = store.replace_folder
    monkeypatch.setattr(store, "replace_folder", slowly)
    with pytest.raises(loop.Interrupted):
        train(tmp_path, save_every=2)
    first, then = store.steps(tmp_path)
    assert first == 2 and then < STEPS
    for step in (first, then):
        store.verify(store.find(tmp_path, step))
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize(("end", "steps"), [(9, 2), (10, 3), (13, 3), (1, 1)])
def test_a_pass_over_the_data_ends_the_run(tmp_path, end, steps):
    """4 micro-batches a step: a step whose first one ends the pass is not begun, one that has begun
    is finished, as in the original; the first always is."""
    done = train(tmp_path, steps=None, loader=Counting(end=end), save_every=-1)
    assert done.step == steps


def test_metrics_survive_a_torn_last_line(tmp_path):
    train(tmp_path, steps=4)
    path = tmp_path / "metrics.jsonl"
    path.write_text(path.read_text() + '{"step": 4, "tra')
    train(tmp_path, saved=store.find(tmp_path, 4))
    assert [s for s, _ in losses(tmp_path)] == list(range(STEPS))


def test_a_clock_that_is_set_back_changes_no_duration(tmp_path, monkeypatch):
    clock = itertools.count(2e9, -3600)
    monkeypatch.setattr(time, "time", lambda: float(next(clock)))
    done = train(tmp_path, steps=4)
    lines = metrics.read(tmp_path / "metrics.jsonl")
    assert next(clock) < 2e9 - 3600  # it was looked at
    assert all(e["step_ms"] > 0 and e["tokens_per_s"] > 0 for e in lines if "step_ms" in e)
    assert done.progress.train_s >= 0 and store.steps(tmp_path)


def test_metrics_lines_hold_the_promised_keys(tmp_path):
    train(tmp_path, steps=1, save_every=-1)
    line = json.loads((tmp_path / "metrics.jsonl").read_text().splitlines()[0])
    assert {"step", "train/loss", "tokens_per_s"} <= line.keys()
    assert list(tmp_path.glob("events.out.tfevents.*"))


def test_an_older_progress_record_can_be_read():
    kept = loop.Progress.from_json({"train_s": 3.0, "unknown": 1, "best_bpb": None})
    assert dataclasses.asdict(kept)["train_s"] == 3.0
