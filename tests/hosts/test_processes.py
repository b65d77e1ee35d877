"""Whole runs in several processes; `python -m bench.processes` prints such curves side by side."""

import shutil
import signal
import time

import numpy as np
import pytest

from nanochat_jax.checkpoint import store
from nanochat_jax.files import read_json_lines
from tests.evals import core_bundles
from tests.hosts import world
from tests.tasks.made_files import write_task_files
from tests.train import rl_world

# Each starts up to four programs that compile, on machines of any speed.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def begun(tmp_path_factory):
    """A base directory with a tokenizer and nothing else."""
    root = tmp_path_factory.mktemp("begun")
    world.run(root, "train --stage tokenizer", 1, 0)
    return root


@pytest.fixture(scope="module")
def alone(begun, tmp_path_factory):
    """A run of base in one process with four devices."""
    root = tmp_path_factory.mktemp("alone") / "base"
    shutil.copytree(begun, root)
    world.run(root, "train --stage base --loader-ranks 4", 1, 4)
    return root


def same_curve(one, other, stage="base"):
    """Equal up to the order in which float32 numbers are summed."""
    for key in ("train/loss", "val/bpb"):
        curves = world.numbers(one, key, stage), world.numbers(other, key, stage)
        assert len(curves[0]) > 1
        np.testing.assert_allclose(*curves, rtol=1e-4, err_msg=f"{stage} {key}")


@pytest.mark.parametrize("processes", [2, 4])
def test_processes_give_the_curve_of_one(begun, alone, processes, tmp_path):
    """With `--loader-ranks 4` each process also reads and tokenizes its own part alone."""
    root = tmp_path / "base"
    shutil.copytree(begun, root)
    world.run(root, "train --stage base --loader-ranks 4", processes, 4)
    same_curve(alone, root)
    positions = [store.find(r / "base_checkpoints" / "d1").loader for r in (alone, root)]
    assert positions[0] == positions[1]
    assert "saved" in world.said(root, 0) and "saved" not in world.said(root, 1)


def test_a_run_is_stopped_killed_and_ended_by_fewer(begun, alone, tmp_path):
    root = tmp_path / "base"
    shutil.copytree(begun, root)
    command = "train --stage base --loader-ranks 4 --save-every 2"
    started = world.start(root, command, 2, 4)
    world.wait_for_step(root, 1)
    started[1].send_signal(signal.SIGTERM)
    assert world.codes(started, 60) == [143, 143]

    started = world.start(root, f"{command} --resume", 2, 4)
    step = world.lines(root)[-1]["step"]
    world.wait_for_step(root, min(step + 2, world.STEPS - 2))
    started[1].kill()
    killed = time.monotonic()
    assert world.codes(started, 60)[0] == 1
    assert time.monotonic() - killed < 60
    assert f"pid {started[1].pid}) has not answered" in world.said(root, 0)

    world.run(root, f"{command} --resume", 1, 4)
    same_curve(alone, root)


def test_every_stage_and_its_scores_are_those_of_one_process(tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    for root, processes in ((one, 1), (two, 2)):
        world.run(root, "speedrun --rl", processes, 2)
    for stage in ("base", "mid", "chatsft"):
        same_curve(one, two, stage)
    rewards = [world.numbers(root, "train/reward", "chatrl") for root in (one, two)]
    assert len(rewards[0]) == 2 and rewards[0] == rewards[1]
    assert (two / "report" / "report.md").exists()


def test_scores_and_answers_are_those_of_one_process(tmp_path):
    """CORE, letters and written answers: the files with every graded question, line by line."""
    files = write_task_files(tmp_path / "files")
    core_bundles.three(files / "core_eval")
    found = []
    for processes in (1, 2):
        root = tmp_path / str(processes)
        rl_world.write_sft(root, rl_world.taught(rl_world.CHATS, 0))
        tasks = f"eval -i sft -a core,GSM8K,ARC-Easy --task-data {files}"
        world.run(root, tasks, processes, 2)
        found.append({path.name: files_read(path) for path in root.glob("eval/**/*.jsonl")})
    one, two = found
    assert len(one) == 5 and one.keys() == two.keys()
    for name in one:
        assert_alike(one[name], two[name])


def files_read(path):
    """The lines of an answers file, in the order of their questions."""
    first, *rest = read_json_lines(path)
    return [first, *sorted(rest, key=lambda line: line["question"])]


def assert_alike(one, other):
    """Equal, numbers up to the order in which float32 numbers are summed."""
    if isinstance(one, dict):
        assert one.keys() == other.keys()
        one, other = list(one.values()), list(other.values())
    if isinstance(one, list):
        assert len(one) == len(other)
        for pair in zip(one, other, strict=True):
            assert_alike(*pair)
    elif isinstance(one, float):
        assert one == pytest.approx(other, rel=1e-4, abs=1e-4)
    else:
        assert one == other
