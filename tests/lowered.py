"""What a GPU's compiler would be given, without a GPU."""

from collections.abc import Callable

import jax

from nanochat_jax import sharding
from nanochat_jax.aot import target
from nanochat_jax.aot.cards import card


def text_for_gpu(function: Callable, *arguments) -> str:
    """The function lowered for CUDA; from jax 0.12 on kernels want to know for which card."""
    with target.abstract_mesh(card("h100-80gb"), sharding.make_mesh("1")):
        return jax.jit(function).trace(*arguments).lower(lowering_platforms=("cuda",)).as_text()
