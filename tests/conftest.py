"""Shared set-up: four virtual CPU devices, one compilation cache, and a key.

JAX reads the device count when it first looks at its backends, so this must run before any test
imports something that does.
"""

import os
import pathlib
import signal

os.environ.setdefault("JAX_PLATFORMS", "cpu")
# Most of the time goes into compiling: machine code made in a hurry takes a third less of it. The
# programs that tests start inherit this. The graph is optimised as ever; only LLVM does less.
os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_backend_optimization_level=0"

import jax
import pytest

ROOT = pathlib.Path(__file__).resolve().parents[1]

jax.config.update("jax_num_cpu_devices", 4)
jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_compilation_cache_dir", str(ROOT / ".cache" / "jax"))
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.3)

# A shell that starts us in the background ignores Ctrl-C for us and all we start: tests send it.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def key() -> jax.Array:
    """A typed PRNG key, the same in every test."""
    return jax.random.key(0)


@pytest.fixture
def base_dir(tmp_path, monkeypatch) -> pathlib.Path:
    """An empty base directory that `$NANOCHAT_BASE_DIR` points to."""
    path = tmp_path / "base"
    path.mkdir()
    monkeypatch.setenv("NANOCHAT_BASE_DIR", str(path))
    return path
