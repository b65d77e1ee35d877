"""The gate runs where JAX can compile for NVIDIA GPUs: in the environment of `make test-gpu`."""

import pytest

from tests import needs


@pytest.fixture(scope="session", autouse=True)
def cuda_compiler():
    needs.cuda_compiler()
