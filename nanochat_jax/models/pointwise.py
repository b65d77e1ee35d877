"""Norms, rotation and activation: small functions whose backward passes keep as little as they can.

They cost memory traffic and no arithmetic worth the name, so what counts is which arrays they read,
write and keep. Left to automatic differentiation each keeps float32 or second copies of what a
product keeps anyway. Here each says what it keeps, in the type that computes; `docs/log.md` of 28
November 2026 has the bytes.
"""

from functools import partial

import jax
import jax.numpy as jnp
from jax import lax
from jax.ad_checkpoint import checkpoint_name

from nanochat_jax.models.remat import PRODUCT


@partial(jax.custom_vjp, nondiff_argnums=(1,))
def rms_norm(x: jax.Array, eps: float) -> jax.Array:
    """x / root mean square over the last axis, without a gain; float32 inside, x's type outside.

    Keeps x. Source: arXiv:1910.07467.
    """
    # No learnable gain: the matrix behind a norm can scale its inputs itself, and a vector fewer
    # in every layer is a parameter fewer that needs a learning rate of its own.
    x32 = x.astype(jnp.float32)
    return (x32 * _inverse_rms(x32, eps)).astype(x.dtype)


def _inverse_rms(x32: jax.Array, eps: float) -> jax.Array:
    return lax.rsqrt(jnp.mean(x32 * x32, axis=-1, keepdims=True) + eps)


def _norm_forward(x, eps):
    return rms_norm(x, eps), x


def _norm_backward(eps, x, dy):
    # Without the barrier XLA would compute the mean once for both passes, and could no longer norm
    # in one kernel that reads x once.
    x32, dy32 = lax.optimization_barrier(x).astype(jnp.float32), dy.astype(jnp.float32)
    scale = _inverse_rms(x32, eps)
    along = scale * scale * jnp.mean(x32 * dy32, axis=-1, keepdims=True)
    return (((dy32 - x32 * along) * scale).astype(x.dtype),)


rms_norm.defvjp(_norm_forward, _norm_backward)


def rotate(x_BTNH: jax.Array, tables: tuple[jax.Array, ...]) -> jax.Array:
    """Rotates the pairs (i, i + H/2) of each head by minus their angle.

    The sign is nanochat's and differs from the common `rotate_half`; attention sees only
    differences of angles, but weights trained with one sign are wrong with the other.
    """
    cos, sin = tables
    a, b = jnp.split(x_BTNH, 2, axis=-1)
    return jnp.concatenate([a * cos + b * sin, b * cos - a * sin], axis=-1)


@partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def rotated_norm(
    x_BTNH: jax.Array, tables: tuple[jax.Array, ...], eps: float, length: float
) -> jax.Array:
    """Heads turned by their positions and normed to a root mean square of `length`.

    Keeps the result, which attention keeps too, and a float32 a head.
    """
    return _rotated(x_BTNH, tables, eps, length)[0]


def _rotated(x_BTNH, tables, eps, length):
    x32, (cos, sin) = x_BTNH.astype(jnp.float32), _wide(tables)
    # The squares of the turned heads, without turning them first: XLA would write them down, to
    # read them twice. Tables rounded to bfloat16 (classic) do change lengths a little.
    squares_BTNH = x32 * x32 * jnp.tile(cos * cos + sin * sin, 2)
    scale_BTN1 = lax.rsqrt(jnp.mean(squares_BTNH, axis=-1, keepdims=True) + eps)
    y_BTNH = (rotate(x32, (cos, sin)) * (scale_BTN1 * length)).astype(x_BTNH.dtype)
    # Kept in the product's place, from which both could be made again.
    y_BTNH, scale_BTN1 = (checkpoint_name(a, PRODUCT) for a in (y_BTNH, scale_BTN1))
    return y_BTNH, (y_BTNH, scale_BTN1, tables)


def _rotated_backward(eps, length, kept, dy_BTNH):
    y_BTNH, scale_BTN1, (cos, sin) = kept
    y32, dy32 = lax.optimization_barrier(y_BTNH).astype(jnp.float32), dy_BTNH.astype(jnp.float32)
    along = jnp.mean(y32 * dy32, axis=-1, keepdims=True) / length
    turned = (dy32 * length - y32 * along) * scale_BTN1
    return rotate(turned, _wide((cos, -sin))).astype(dy_BTNH.dtype), None


def _wide(tables: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
    return tuple(table.astype(jnp.float32) for table in tables)


rotated_norm.defvjp(_rotated, _rotated_backward)


@jax.custom_vjp
def squared_relu(x: jax.Array) -> jax.Array:
    """relu(x)^2. Keeps relu(x).

    The square makes relu smooth at 0 and keeps its zeros; a search over Transformer programs found
    it to train better for the same compute. Source: arXiv:2109.08668 (Primer).
    """
    return _squared(x)[0]


def _squared(x):
    positive = checkpoint_name(jnp.maximum(x, 0), PRODUCT)
    return positive * positive, positive


def _squared_backward(positive, dy):
    # Doubled before it is multiplied: XLA then does both where the product before writes dy.
    return (dy * 2 * positive,)


squared_relu.defvjp(_squared, _squared_backward)
