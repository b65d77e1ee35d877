"""A run that is killed anywhere leaves what can go on, to the same bytes."""

import pathlib
import random
import shutil

import pytest

from nanochat_jax.checkpoint import store
from nanochat_jax.train import metrics
from tests.kills import __main__ as program
from tests.kills.deaths import FILE, MOMENT, PULL, WRITE, Clockwork, Death
from tests.kills.world import Cell
from tests.train.test_loop import STEPS, files, losses, train


class Snapshots:
    """The folder of a run as a kill would leave it, at every operation of the run on its files."""

    def __init__(self, directory: pathlib.Path, to: pathlib.Path):
        self.directory, self.to = directory, to
        self.kept: list[tuple[pathlib.Path, int]] = []  # and the last whole step there
        self.clockwork = Clockwork(directory, self.take)

    def take(self, kind: str, number: int) -> None:
        if kind == PULL or not self.directory.exists():
            return
        path = copied(self.directory, self.to / f"{kind}-{number}")
        self.kept.append((path, max(store.steps(path), default=0)))


def copied(folder: pathlib.Path, to: pathlib.Path) -> pathlib.Path:
    """A copy, without what vanishes meanwhile: TensorStore's threads do not wait for us."""
    try:
        return shutil.copytree(folder, to)
    except shutil.Error as error:
        assert all("No such file" in why for _, _, why in error.args[0])
        return to


def test_a_run_that_dies_at_any_operation_on_its_files_leaves_whole_steps_and_lines(tmp_path):
    whole, run = tmp_path / "whole", tmp_path / "run"
    train(whole, save_every=-1)
    snapshots = Snapshots(run, tmp_path / "snapshots")
    with snapshots.clockwork.wound():
        train(run, save_every=4)
    assert {at for _, at in snapshots.kept} == {0, 4, 6}
    ats = [at for _, at in snapshots.kept]
    assert ats == sorted(ats), "a step that was there is there after the next operation"
    for path, at in snapshots.kept:
        for step in store.steps(path):
            store.verify(store.find(path, step))
        lines = losses(path)
        assert lines == losses(whole)[: len(lines)] and len(lines) >= at
    begun = [(path, at) for path, at in snapshots.kept if 0 < at < STEPS]
    for path, at in random.Random(0).sample(begun, 2):
        train(path, saved=store.find(path))
        assert files(path / "000006") == files(whole / "000006"), (path.name, at)
        assert losses(path) == losses(whole)
        assert [line["step"] for line in metrics.read(path / "metrics.jsonl")] == list(range(STEPS))


@pytest.mark.slow
def test_training_killed_in_a_save_in_a_write_in_the_loader_and_anywhere_loses_no_byte(
    tmp_path, monkeypatch
):
    deaths = [Death(PULL, 7), Death(FILE, 60, 0.05), Death(WRITE, 12), Death(MOMENT, 1, 2.0)]
    waiting = list(deaths)
    monkeypatch.setattr(program, "draw", lambda *_: waiting.pop(0))
    monkeypatch.setattr(program.world, "chain", lambda recipe: [])
    bench, cell = program.Bench(tmp_path), Cell("base", "current", "bestfit")
    found = bench.disturbed(cell, bench.whole(cell), most=len(deaths), rng=random.Random(0))
    assert found == program.Found(str(cell), deaths[: len(found.deaths)]) and not waiting
