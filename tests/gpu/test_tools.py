"""What people type to learn of a step on cards that are not there: it compiles, and answers."""

import json
import subprocess
import sys

import pytest

from nanochat_jax.aot import command

SMALL = ["--depth=4", "--device-batch-size=2", "--total-batch-size=262144"]


def test_the_roofline_takes_a_mesh_of_two_axes_over_nodes():
    found = json.loads(command.run([*SMALL, "--mesh=data=8,fsdp=8", "--json"]))
    assert found["devices"] == 64 and found["sent_gb"] > 0
    assert 0 < found["waiting_ms"] < found["step_ms"]


def test_the_scaling_benchmark_compares_with_one_card():
    words = [sys.executable, "-m", "bench.scaling", "--depths", "4", "--devices", "1", "8"]
    done = subprocess.run([*words, "--rows", "2"], capture_output=True, text=True, check=True)
    one, eight = json.loads(done.stdout.splitlines()[-1])["rows"]
    assert (one["devices"], one["sent_gb"], one["efficiency"]) == (1, 0, 1)
    assert eight["devices"] == 8
    assert eight["sent_gb"] > 0 and eight["tokens"] == 8 * one["tokens"]
    each = one["tokens_per_s"] * eight["efficiency"]
    assert eight["tokens_per_s"] == pytest.approx(8 * each, rel=1e-9)
