"""Runs in one or several processes of this machine, with a model that trains in a second."""

import json
import os
import pathlib
import socket
import subprocess
import sys
import time

import numpy as np

ROOT = pathlib.Path(__file__).resolve().parents[2]
STEPS = 8
SETTINGS = f"""
embedded_world = true
device_batch_size = 1
max_seq_len = 64
num_iterations = {STEPS}
eval_every = 4
eval_tokens = 1024
sample_every = 4
sample_prompts = ["Mira lives in"]
[tokenizer]
vocab_size = 300
max_chars = 20000
[base]
depth = 1
aspect_ratio = 32
head_dim = 16
total_batch_size = 512
[mid]
total_batch_size = 512
mixture = ["conversations:200", "documents:50"]
val_mixture = ["conversations:20"]
[sft]
source = "mid"
target_examples_per_step = 8
eval_steps = 2
eval_metrics_every = -1
mixture = ["conversations:80"]
val_mixture = ["conversations:20"]
[rl]
num_iterations = 2
examples_per_step = 4
num_samples = 2
max_new_tokens = 8
eval_examples = 4
eval_samples = 2
mixture = ["exchanges:sums"]
val_mixture = ["exchanges:sums"]
[speedrun]
download = 0
[eval]
tasks = "bpb"
max_problems = 8
max_new_tokens = 8
device_batch_size = 4
"""


def start(root: pathlib.Path, command: str, processes: int, devices: int) -> list[subprocess.Popen]:
    """The processes of a program with a base directory of its own, over simulated devices (0: as
    it chooses them); what process i prints goes to `<i>.log` there."""
    config = root / "tiny.toml"
    config.parent.mkdir(exist_ok=True)
    config.write_text(SETTINGS)
    more = f"--config {config}" + (f" --mesh {devices} --simulate-devices" if devices else "")
    env = os.environ | {"NANOCHAT_BASE_DIR": str(root), "PYTHONUNBUFFERED": "1"}
    env |= {"JAX_PLATFORMS": "cpu", "JAX_COMPILATION_CACHE_DIR": str(ROOT / ".cache" / "jax")}
    port = free_port()
    started = []
    for i in range(processes):
        several = f"--coordinator 127.0.0.1:{port} --num-processes {processes} --process-id {i}"
        argv = f"-m scripts.{command} {more} {several if processes > 1 else ''}".split()
        with (root / f"{i}.log").open("w") as log:
            one = subprocess.Popen(
                [sys.executable, *argv], cwd=ROOT, env=env, stdout=log, stderr=log
            )
            started.append(one)
    return started


def codes(started: list[subprocess.Popen], within_s: float = 600) -> list[int]:
    """The exit codes of all, once they have ended; a test that gives up leaves none behind."""
    end = time.monotonic() + within_s
    try:
        return [one.wait(max(0.1, end - time.monotonic())) for one in started]
    finally:
        for one in started:
            one.kill()


def run(root: pathlib.Path, command: str, processes: int, devices: int) -> None:
    """The program to its end, which must be a good one."""
    ended = codes(start(root, command, processes, devices))
    assert ended == [0] * processes, said(root, 0)


def said(root: pathlib.Path, process: int) -> str:
    """What a process printed."""
    return (root / f"{process}.log").read_text()


def lines(root: pathlib.Path, stage: str = "base") -> list[dict]:
    """The metrics of a stage, as far as they are written."""
    file = root / f"{stage}_checkpoints" / "d1" / "metrics.jsonl"
    text = file.read_text() if file.exists() else ""
    return [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]


def numbers(root: pathlib.Path, key: str, stage: str = "base") -> list[float]:
    """One number of every line that has it."""
    return [line[key] for line in lines(root, stage) if key in line]


def wait_for_step(root: pathlib.Path, step: int, within_s: float = 300) -> None:
    """Returns when a run of base has logged the step."""
    end = time.monotonic() + within_s
    while not any(line["step"] >= step and "train/loss" in line for line in lines(root)):
        assert time.monotonic() < end, said(root, 0)
        time.sleep(0.05)


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def same_curve(one: pathlib.Path, other: pathlib.Path, stage: str = "base") -> None:
    """Equal up to the order in which float32 numbers are summed."""
    for key in ("train/loss", "val/bpb"):
        curves = numbers(one, key, stage), numbers(other, key, stage)
        assert len(curves[0]) > 1
        np.testing.assert_allclose(*curves, rtol=1e-4, err_msg=f"{stage} {key}")
