"""A checkpoint directory belongs to one run at a time, and to none that is dead."""

import json
import os
import socket
import subprocess
import sys
import time

import pytest

from nanochat_jax import locks

HOLD = """
import pathlib, sys
from nanochat_jax import locks
with locks.held(pathlib.Path(sys.argv[1])):
    print("has it", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def directory(tmp_path):
    return tmp_path / "base_checkpoints" / "d4"


@pytest.fixture
def other(directory):
    """Another process that has the lock until its input ends."""
    pipes = dict(stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(directory)], **pipes)
    assert process.stdout.readline() == "has it\n"
    yield process
    process.kill()
    process.wait()


def without_flock(monkeypatch):
    def flock(file, how):
        raise OSError(locks.errno.ENOLCK, "no locks here")

    monkeypatch.setattr(locks.fcntl, "flock", flock)


@pytest.mark.parametrize("kernel", [True, False])
def test_a_second_run_is_refused_with_host_and_process(directory, other, kernel, monkeypatch):
    if not kernel:
        without_flock(monkeypatch)
    says = f"d4 is in use by process {other.pid} on {socket.gethostname()}"
    for refused in (lambda: locks.held(directory).__enter__(), lambda: locks.check(directory)):
        with pytest.raises(ValueError, match=says):
            refused()
    other.stdin.close()
    with locks.held(directory, wait_s=10):
        assert json.loads(locks.path_of(directory).read_text())["pid"] == os.getpid()
    assert not locks.path_of(directory).exists()


@pytest.mark.parametrize("kernel", [True, False])
def test_the_lock_of_a_killed_run_is_taken_over(directory, other, kernel, monkeypatch):
    if not kernel:
        without_flock(monkeypatch)
    other.kill()
    other.wait()
    assert locks.path_of(directory).exists()
    with locks.held(directory):
        pass


def test_a_number_given_to_another_process_is_not_the_dead_run(directory, monkeypatch):
    without_flock(monkeypatch)
    directory.parent.mkdir(parents=True)
    dead = {"host": socket.gethostname(), "pid": os.getpid(), "started": 1.0}
    locks.path_of(directory).write_text(json.dumps(dead))
    with locks.held(directory):
        pass


def test_another_host_counts_while_it_gives_signs_of_life(directory):
    directory.parent.mkdir(parents=True)
    path = locks.path_of(directory)
    path.write_text(json.dumps({"host": "node7", "pid": 5, "started": 1.0}))
    with pytest.raises(ValueError, match=f"process 5 on node7; if that run is gone, delete {path}"):
        locks.check(directory)
    then = time.time() - 2 * locks.DEAD_S
    os.utime(path, (then, then))
    locks.check(directory)
    assert list(path.parent.iterdir()) == []


def test_a_run_gives_signs_of_life(directory, monkeypatch):
    monkeypatch.setattr(locks, "BEAT_S", 0.02)
    with locks.held(directory):
        path = locks.path_of(directory)
        os.utime(path, (1, 1))
        deadline = time.monotonic() + 10
        while path.stat().st_mtime < 2 and time.monotonic() < deadline:
            time.sleep(0.02)
        assert path.stat().st_mtime > 2
