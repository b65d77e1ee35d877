"""Whole runs in several processes; `python -m bench.processes` prints such curves side by side."""

import shutil
import signal
import time

import pytest

from nanochat_jax.checkpoint import store
from tests.hosts import world

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


def test_processes_give_the_curve_of_one(begun, alone, tmp_path):
    """With `--loader-ranks 4` each process also reads and tokenizes its own part alone."""
    root = tmp_path / "base"
    shutil.copytree(begun, root)
    world.run(root, "train --stage base --loader-ranks 4", 4, 4)
    world.same_curve(alone, root)
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
    world.same_curve(alone, root)
