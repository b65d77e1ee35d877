"""What a GPU's compiler would be given, without a GPU."""

from collections.abc import Callable

import jax
from jax.sharding import AbstractDevice, AbstractMesh, use_abstract_mesh


def text_for_gpu(function: Callable, *arguments) -> str:
    """The function lowered for CUDA; from jax 0.12 on kernels want to know for which card."""
    card = AbstractDevice(device_kind="NVIDIA H100 80GB HBM3", num_cores=132, platform="gpu")
    with use_abstract_mesh(AbstractMesh((1,), ("data",), abstract_device=card)):
        return jax.jit(function).trace(*arguments).lower(lowering_platforms=("cuda",)).as_text()
