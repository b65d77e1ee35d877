"""The gate runs where JAX can compile for NVIDIA GPUs: in the environment of `make test-gpu`."""

import jax
import pytest

from tests import needs


@pytest.fixture(scope="session", autouse=True)
def cuda_compiler():
    needs.cuda_compiler()
    # A program for a card that is not here cannot be read back from the cache.
    jax.config.update("jax_enable_compilation_cache", False)
