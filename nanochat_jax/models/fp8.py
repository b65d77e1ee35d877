"""Products in 8-bit floating point, forward and backward: twice as fast on an H100 as in bfloat16.

Each tensor is scaled as a whole, by its own largest entry, so that eight bits reach from there down
("tensorwise, current scaling"): float8_e4m3fn (3 bits of mantissa, to 448) for inputs and weights,
float8_e5m2 (2 bits, to 57,344) for gradients, which spread wider. Sums are taken in float32.
Source: nanochat `nanochat/fp8.py` (July 2026); the formats are those of arXiv:2209.05433.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

FORWARD, BACKWARD = jnp.float8_e4m3fn, jnp.float8_e5m2
# Of a tensor of zeros nothing may be divided by; the original's bound.
SMALLEST = 1e-12


class Scaled(NamedTuple):
    """A tensor in eight bits: `values` x `unit`, a float32 scalar."""

    values: jax.Array
    unit: jax.Array


def scaled(x: jax.Array, dtype: Any) -> Scaled:
    """The tensor with its largest entry at the end of the range of `dtype`.

    A NaN stays one, and with an infinity all of it is NaN: a run that diverges shows.
    """
    end = float(jnp.finfo(dtype).max)
    largest = jnp.maximum(jnp.max(jnp.abs(x)).astype(jnp.float32), SMALLEST)
    # Not clipped: what the scale's own rounding carries past the end is far less than half a step
    # of eight bits. And a CPU's `maximum` and `minimum` would make a number of a NaN.
    return Scaled((x.astype(jnp.float32) * (end / largest)).astype(dtype), largest / end)


def suits(shape: Sequence[int]) -> bool:
    """Whether a matrix of that shape is computed in eight bits: tensor cores want multiples of 16,
    and below 128 the scaling costs more than the product gains. Source: `scripts/base_train.py`."""
    return min(shape) >= 128 and all(n % 16 == 0 for n in shape)


def dot_general(
    x: jax.Array, kernel_IO: jax.Array, dims: Any, precision: Any = None
) -> jax.Array:  # fmt: skip
    """x W as `lax.dot_general`, for `flax.linen.Dense`; in eight bits where that suits W."""
    if not suits(kernel_IO.shape):
        return lax.dot_general(x, kernel_IO, dims, precision=precision)
    y_NO = matmul(x.reshape(-1, x.shape[-1]), kernel_IO)
    return y_NO.reshape(*x.shape[:-1], -1)


@jax.custom_vjp
def matmul(x_NI: jax.Array, kernel_IO: jax.Array) -> jax.Array:
    """x W in the type of x, from e4m3; its gradients from e5m2 by e4m3, in the types of x and W."""
    return _forward(x_NI, kernel_IO)[0]


def _forward(x_NI: jax.Array, kernel_IO: jax.Array) -> tuple[jax.Array, tuple[Scaled, Scaled]]:
    x_NI, kernel_IO, out = scaled(x_NI, FORWARD), scaled(kernel_IO, FORWARD), x_NI.dtype
    # What the backward pass needs is kept in eight bits too: half the memory of bfloat16. As bytes,
    # since rematerialisation passes each float that it keeps through `reduce_precision`, and that
    # takes e4m3fn's largest exponent for infinity: entries of 256 and more would be NaN.
    kept = tuple(a._replace(values=_as(jnp.uint8, a.values)) for a in (x_NI, kernel_IO))
    return _product(x_NI, kernel_IO, (1, 0), out), kept


def _backward(saved: tuple[Scaled, Scaled], dy_NO: jax.Array) -> tuple[jax.Array, jax.Array]:
    x_NI, kernel_IO = (a._replace(values=_as(FORWARD, a.values)) for a in saved)
    dy_NO, out = scaled(dy_NO, BACKWARD), dy_NO.dtype
    # HIGHEST: on a GPU every partial sum in float32. The default adds up fewer bits and is a little
    # faster; the original has it in the forward pass alone.
    exact = dict(precision=lax.Precision.HIGHEST)
    dx_NI = _product(dy_NO, kernel_IO, (1, 1), out, **exact)
    return dx_NI, _product(x_NI, dy_NO, (0, 0), out, **exact)


matmul.defvjp(_forward, _backward)


def _as(dtype: Any, bits: jax.Array) -> jax.Array:
    return lax.bitcast_convert_type(bits, dtype)


def _product(a: Scaled, b: Scaled, axes: tuple[int, int], out: Any, **options: Any) -> jax.Array:
    """The product over one axis of each, in the type `out`."""
    # The operands themselves are 8-bit. Written as a product of widened and scaled ones, XLA may
    # fold that into what comes before and multiply in bfloat16 (its Triton kernels do).
    dims = (((axes[0],), (axes[1],)), ((), ()))
    y = lax.dot_general(a.values, b.values, dims, preferred_element_type=out, **options)
    # In the type of the result: then cuBLAS multiplies by the float32 scalar before it rounds, and
    # no kernel runs after it.
    return y * (a.unit * b.unit).astype(out)
