"""The matrices of the model: ordinary ones, and ones that were stored as int8 for serving."""

from typing import Any

import flax.linen as nn
import jax
from jax import lax

from nanochat_jax.config.gpt import GPTConfig
from nanochat_jax.models.fp8 import dot_general


class Linear(nn.Dense):
    """x W. An int8 kernel has a float32 `scale` per output channel beside it: x W scale.

    The channels' scales multiply the result, so that W itself is read as int8 and nothing else.
    """

    def __call__(self, x: jax.Array) -> jax.Array:
        if not self.has_variable("params", "scale"):
            return super().__call__(x)
        kernel_IO, scale_O = (self.get_variable("params", name) for name in ("kernel", "scale"))
        # W shall be widened in every step, not before the loop of steps, which would keep a wide
        # copy beside it. XLA for CPUs does not heed this: there it is done once a dispatch.
        kernel_IO, x = lax.optimization_barrier((kernel_IO, x))
        y = lax.dot_general(
            x.astype(self.dtype), kernel_IO.astype(self.dtype), (((x.ndim - 1,), (0,)), ((), ()))
        )
        return y * scale_O.astype(y.dtype).reshape(*[1] * (y.ndim - 1), -1)


class Layer(nn.Module):
    """What attention, MLP and block have in common: the model's config, its two types, and whether
    large matrices multiply in eight bits (`models/fp8.py`)."""

    cfg: GPTConfig
    dtype: Any
    param_dtype: Any
    fp8: bool

    @nn.nowrap
    def matrix(self, width: int, init: nn.initializers.Initializer, fp8: bool = True) -> Linear:
        """A matrix to `width` channels; nothing in the model has a bias. `fp8` False: never so."""
        dot = dot_general if fp8 and self.fp8 else None
        return Linear(width, False, self.dtype, self.param_dtype, kernel_init=init, dot_general=dot)
