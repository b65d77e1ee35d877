"""What a process on GPUs is given, and that it leaves what the user has set."""

import os
import subprocess
import sys

import pytest

from nanochat_jax import devices, gpu_process
from nanochat_jax.gpu_process import FRACTION, OLD_POOL, POOL, SEVERAL_DEVICES, environment

HIDING = "--xla_gpu_enable_latency_hiding_scheduler"


def test_one_gpu_gets_a_large_pool_and_several_overlap_their_collectives():
    assert environment(1, {}) == {POOL: "0.92"}
    assert environment(8, {}) == {POOL: "0.92", "XLA_FLAGS": f"{HIDING}=true"}


def test_what_the_user_has_set_stands():
    own = {POOL: "0.5", "XLA_FLAGS": f"{HIDING}=false --xla_dump_to=here"}
    assert environment(8, own) == {}
    # JAX refuses to start with both names of the pool.
    assert environment(1, {OLD_POOL: "0.5"}) == {}
    flags = environment(8, {"XLA_FLAGS": "--xla_dump_to=here"})["XLA_FLAGS"]
    assert flags == f"--xla_dump_to=here {HIDING}=true"


@pytest.mark.parametrize(
    ("chosen", "count"),
    [(None, 8), ("0,3", 2), ("", 0), ("GPU-8932f937", 1), ("1,-1,2", 1), ("-1", 0),
     ("GPU-8932f937-d72c-1b06-c12f-20bd9faed9f6, GPU-1c0f", 2)],
)  # fmt: skip
def test_gpus_are_counted_as_cuda_shows_them(chosen, count):
    env = {} if chosen is None else {"CUDA_VISIBLE_DEVICES": chosen}
    assert gpu_process.visible_gpus(env, device_files=8) == count


def test_the_environment_is_written_before_jax_starts(monkeypatch):
    monkeypatch.setattr(devices, "machine_kind", lambda: "gpu")
    monkeypatch.setattr(os, "environ", {})
    assert devices.prepare("gpu", "4") == "gpu"
    assert os.environ == environment(4, {})
    monkeypatch.setattr(os, "environ", {})
    devices.prepare("gpu", "1")
    assert os.environ == {POOL: FRACTION}


def started(flags: dict[str, str]) -> subprocess.CompletedProcess:
    """A process of JAX with these flags of XLA, which every backend of it reads."""
    env = os.environ | {"XLA_FLAGS": " ".join(f"--{k}={v}" for k, v in flags.items())}
    program = "import jax; jax.block_until_ready(jax.numpy.zeros(3))"
    return subprocess.run([sys.executable, "-c", program], env=env, capture_output=True, text=True)


def test_this_xla_knows_every_flag_that_is_set_here():
    done = started(SEVERAL_DEVICES)
    assert done.returncode == 0, done.stderr
    # One that it does not know ends the process: so the check above can fail.
    assert started({"xla_gpu_no_such_flag": "true"}).returncode != 0


def test_autotuning_results_are_kept_beside_compiled_programs():
    import jax

    assert "autotune_cache_dir" in jax.config.jax_persistent_cache_enable_xla_caches
