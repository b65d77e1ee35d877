"""The matrices of the model: ordinary ones, and ones that were stored anew for serving."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from nanochat_jax.config.gpt import GPTConfig
from nanochat_jax.models import lora
from nanochat_jax.models.fp8 import dot_general

TILE = 8  # rows that XLA's products for CPUs compute together at least


class Linear(nn.Dense):
    """x W. Serving may store W otherwise (`serve/engine/weights.py`), the numbers are the same.

    `turned` in place of `kernel`: W as [O, I], each channel's weights side by side. `packed`: as
    our own product on CPUs reads it (`models/on_cpu.py`). `scale`: W is int8, and each output
    channel has its float32 factor.
    `lora_a`, `lora_b`: adapters beside W, see `models/lora.py`; `lora_rows`: for which rows of the
    batch, in serving.
    """

    def __call__(self, x: jax.Array) -> jax.Array:
        y = self._product(x)
        return y + self._adapted(x) if self.has_variable("params", lora.A) else y

    @nn.nowrap
    def _adapted(self, x: jax.Array) -> jax.Array:
        A_IR, B_RO = (self.get_variable("params", name) for name in (lora.A, lora.B))
        x, A_IR, B_RO = (y.astype(self.dtype) for y in (x, A_IR, B_RO))
        if not self.has_variable("params", lora.ROWS):
            return (x @ A_IR) @ B_RO
        # Zeros, and not left out: what a row gets does not depend on the rows beside it.
        adapted_B11 = self.get_variable("params", lora.ROWS)[:, None, None]
        low_BTR = _of_few_rows(x, A_IR) * adapted_B11.astype(self.dtype)
        return _of_few_rows(low_BTR, B_RO)

    @nn.nowrap
    def _product(self, x: jax.Array) -> jax.Array:
        if self.has_variable("params", "packed"):
            return self._packed(x)
        turned, scaled = (self.has_variable("params", name) for name in ("turned", "scale"))
        if not turned and not scaled:
            return super().__call__(x)
        W = self.get_variable("params", "turned" if turned else "kernel")
        if scaled:
            # W shall be widened in every step, not before the loop of steps, which would keep a
            # wide copy beside it. XLA for CPUs does not heed this: there it is once a dispatch.
            W, x = lax.optimization_barrier((W, x))
        x, W = x.astype(self.dtype), W.astype(self.dtype)
        if turned:
            y = lax.platform_dependent(x, W, cpu=_turned_on_cpu, default=_turned)
        else:
            y = _contracted(x, W, 0)
        if not scaled:
            return y
        # The channels' factors multiply the result, so that W itself is read as int8.
        scale_O = self.get_variable("params", "scale").astype(y.dtype)
        return y * scale_O.reshape(*[1] * (y.ndim - 1), -1)

    @nn.nowrap
    def _packed(self, x: jax.Array) -> jax.Array:
        from nanochat_jax.models.on_cpu import product

        x_NI, packed = x.reshape(-1, x.shape[-1]), self.get_variable("params", "packed")
        scale_O = self.get_variable("params", "scale")  # None: W is not int8
        y_NO = product(x_NI.astype(jnp.float32), packed, self.features, scale_O)
        return y_NO.reshape(*x.shape[:-1], -1)


def _contracted(x: jax.Array, W: jax.Array, axis: int) -> jax.Array:
    return lax.dot_general(x, W, (((x.ndim - 1,), (axis,)), ((), ())))


def _of_few_rows(x: jax.Array, W_IO: jax.Array) -> jax.Array:
    """x W of a W so small that it does not matter how it lies."""
    cpu, others = (lambda x, W: _turned_on_cpu(x, W.T)), (lambda x, W: x @ W)
    return lax.platform_dependent(x, W_IO, cpu=cpu, default=others)


def _turned(x: jax.Array, W_OI: jax.Array) -> jax.Array:
    return _contracted(x, W_OI, 1)


def _turned_on_cpu(x: jax.Array, W_OI: jax.Array) -> jax.Array:
    """W x', turned back: the product whose right side is the small one.

    XLA packs the right side of a product anew each time; when that is W, a step reads it, writes it
    and reads it again: for 8 rows x 512 x 65,536 it takes 17.2 ms, this way 7.5.
    """
    x_NI = x.reshape(-1, x.shape[-1])
    N = len(x_NI)
    # Tiles are 8 or 16 rows wide, whichever leaves less empty, and sum in different orders. Here
    # 8 always fits better, so that a row's numbers do not depend on how many others there are.
    empty = 0 if N <= TILE else (TILE - N) % (2 * TILE)
    y_ON = W_OI @ jnp.pad(x_NI, ((0, empty), (0, 0))).T
    # Without the barrier XLA moves the transposition into the product, which undoes it all.
    y_NO = lax.optimization_barrier(y_ON).T[:N]
    return y_NO.reshape(*x.shape[:-1], -1)


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
