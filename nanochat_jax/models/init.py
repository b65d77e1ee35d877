"""How parameters begin, recipe by recipe. Kernels are [in, out]."""

import math
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from nanochat_jax.config.gpt import GPTConfig

Init = Callable[..., jax.Array]
zeros = nn.initializers.zeros


def centered_uniform(bound: float) -> Init:
    """Uniform over (-bound, bound)."""
    uniform = jax.random.uniform
    return lambda key, shape, dtype=jnp.float32: uniform(key, shape, dtype, -bound, bound)


def matrix_init(cfg: GPTConfig, scale: float = 1.0) -> Init:
    """A block's input matrices. Current: uniform of std `scale` / sqrt(width).

    Classic: normal of std min(1, sqrt(out / in)) / sqrt(in). Source: nanochat `GPT.init_weights`.
    """
    # At scale 1 outputs have the size of their inputs either way. Uniform numbers have no
    # outliers; sqrt(3) x std is the bound of a uniform distribution with that std.
    if cfg.init == "current":
        return centered_uniform(scale * math.sqrt(3.0 / cfg.n_embd))

    def init(key: jax.Array, shape: tuple[int, ...], dtype: Any = jnp.float32) -> jax.Array:
        fan_in, fan_out = shape
        std = min(1.0, math.sqrt(fan_out / fan_in)) / math.sqrt(fan_in)
        return std * jax.random.normal(key, shape, dtype)

    return init


def falling(first: float, by: float) -> Init:
    """A vector from `first` down to `first - by` over the layers."""
    fallen = lambda L, dtype: by * jnp.arange(L, dtype=dtype) / max(L - 1, 1)
    return lambda _, shape, dtype=jnp.float32: first - fallen(*shape, dtype)
