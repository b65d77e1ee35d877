"""Muon: momentum whose direction is made orthogonal, for stacks of the blocks' matrices.

The momentum of a hidden matrix is nearly of low rank: few directions hold almost all of its norm,
and a step along it moves the others hardly at all, though they may matter as much. Orthogonalised,
all singular values are (about) 1 and every direction moves by the same amount.

A kernel here is `[in, out]`; nanochat's weights are `[out, in]`, and what it calls rows are the
outputs. Axis letters: `K` matrices of a stack, `S` short side, `L` long side, `I` in, `O` out.

In bfloat16 every elementwise result is computed in float32 and rounded once, and constants stay
float32, as torch does it: letting JAX round the constants first moves the result by 5-16 %.

Source: https://kellerjordan.github.io/posts/muon; nanochat `nanochat/{muon,optim}.py`.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

# An SVD would give the exact orthogonal factor, but it is slow and wants float32; a polynomial in X
# needs matrix products alone and stands bfloat16. These coefficients have the steepest slope at 0
# that keeps the iteration bounded: small singular values grow fastest, at the price that none
# converges to 1. They end between 0.7 and 1.2, which training does not notice.
NEWTON_SCHULZ = ((3.4445, -4.7750, 2.0315),)
# Polar Express (arXiv:2505.16932) for five steps, safety 2e-2, cushion 2: the best polynomial of
# each step, given where the one before leaves the singular values. The original measured no effect
# on the loss and kept it (2026-01-10).
POLAR_EXPRESS = (
    (8.156554524902461, -22.48329292557795, 15.878769915207462),
    (4.042929935166739, -2.808917465908714, 0.5000178451051316),
    (3.8916678022926607, -2.772484153217685, 0.5060648178503393),
    (3.285753657755655, -2.3681294933425376, 0.46449024233003106),
    (2.3465413258596377, -1.7097828382687081, 0.42323551169305323),
)


def newton_schulz(x_KIO: jax.Array, steps: int = 5, dtype: Any = jnp.float32) -> jax.Array:
    """Stack `[K, in, out]` with singular values pushed towards 1, roughly: most to 0.7-1.2.

    The fixed quintic of October 2025. `dtype` is that of the arithmetic and of the result.
    """
    return _iterate(x_KIO, NEWTON_SCHULZ * steps, dtype, 1.0, 1e-7, square_first=False)


def polar_express(x_KIO: jax.Array, steps: int = 5, dtype: Any = jnp.float32) -> jax.Array:
    """The same with the step-by-step optimal quintics of July 2026. Source: arXiv:2505.16932."""
    coefficients = (*POLAR_EXPRESS, *POLAR_EXPRESS[-1:] * steps)[:steps]
    return _iterate(x_KIO, coefficients, dtype, 1.01, 1e-6, square_first=True)


def _iterate(
    x_KIO: jax.Array, coefficients: Any, dtype: Any, factor: float, eps: float, square_first: bool
) -> jax.Array:
    """`X <- aX + (bA + cA^2)X` with `A = XX^T`, on the short side, for each `(a, b, c)`.

    `square_first`: `c(AA)`, else `(cA)A`; the two eras of nanochat round at different places.
    """
    x_KIO = rounded(x_KIO, dtype)
    # The Frobenius norm bounds the largest singular value: the iteration starts with all below 1,
    # outside of which it would diverge.
    size_K11 = rounded(f32(rounded(frobenius(x_KIO), dtype)) * factor, dtype)
    size_K11 = rounded(f32(size_K11) + eps, dtype)
    x_KIO = rounded(f32(x_KIO) / f32(size_K11), dtype)
    # On the short side the Gram matrix is the smaller of the two, and the result the same.
    tall = x_KIO.shape[-1] > x_KIO.shape[-2]
    x_KSL = x_KIO if tall else x_KIO.mT
    for a, b, c in coefficients:
        gram_KSS = rounded(x_KSL @ x_KSL.mT, dtype)
        if square_first:
            square_KSS = rounded(f32(rounded(gram_KSS @ gram_KSS, dtype)) * c, dtype)
        else:
            square_KSS = rounded(rounded(f32(gram_KSS) * c, dtype) @ gram_KSS, dtype)
        poly_KSS = rounded(f32(rounded(f32(gram_KSS) * b, dtype)) + f32(square_KSS), dtype)
        scaled_KSL = rounded(f32(x_KSL) * a, dtype)
        x_KSL = rounded(f32(scaled_KSL) + f32(rounded(poly_KSS @ x_KSL, dtype)), dtype)
    return x_KSL if tall else x_KSL.mT


def equalize_rows(x_KIO: jax.Array, dtype: Any = jnp.float32) -> jax.Array:
    """Stack with every output's vector scaled to the mean norm.

    With `renormalize` it helped "very slightly" at depth 12 and 24. Source: nanochat (MuonEq).
    """
    x_KIO = rounded(x_KIO, dtype)
    row_K1O = jnp.sqrt(jnp.sum(jnp.square(f32(x_KIO)), axis=-2, keepdims=True))
    target_K11 = frobenius(x_KIO) / math.sqrt(x_KIO.shape[-1])
    factor_K1O = rounded(target_K11 / jnp.maximum(row_K1O, 1e-6), dtype)
    return rounded(f32(x_KIO) * f32(factor_K1O), dtype)


def renormalize(x_KIO: jax.Array) -> jax.Array:
    """Stack with the Frobenius norm of an orthogonal matrix of its shape: singular values near 1 on
    average, wherever the iteration left them. Source: nanochat (Muon+)."""
    norm = math.sqrt(min(x_KIO.shape[-2:]))
    return x_KIO * (norm / jnp.maximum(frobenius(x_KIO), 1e-6))


def reduce_variance(
    x_KIO: jax.Array, second_K: jax.Array, beta2: float
) -> tuple[jax.Array, jax.Array]:
    """The stack with its rows (or columns, if there are more) evened out, and the new moment.

    The Frobenius norm of each matrix stays. Source: NorMuon, arXiv:2510.05491, as in nanochat.
    """
    axis = -2 if second_K.shape[-2] == 1 else -1
    length = x_KIO.shape[axis]
    mean_K = jnp.mean(jnp.square(x_KIO), axis=axis, keepdims=True)
    second_K = second_K + (1.0 - beta2) * (mean_K - second_K)
    factor_K = lax.rsqrt(jnp.maximum(second_K, 1e-10))
    before = jnp.sqrt(jnp.sum(mean_K * length, axis=(-2, -1), keepdims=True))
    after = jnp.sqrt(jnp.sum(mean_K * length * jnp.square(factor_K), axis=(-2, -1), keepdims=True))
    return x_KIO * (factor_K * (before / jnp.maximum(after, 1e-10))), second_K


def second_shape(shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape of a kernel's second moment, a mean over in (`[1, out]`) or out (`[in, 1]`)."""
    return (1, shape[-1]) if shape[-1] >= shape[-2] else (shape[-2], 1)


def cautious(update_IO: jax.Array, w_IO: jax.Array) -> jax.Array:
    """`w` where decay and update agree, else 0. Source: arXiv:2411.16085.

    Plain decay pulls on every weight, also on those that the gradient is just enlarging; this one
    never fights it. "Solid help" in the original (2026-01-10).
    """
    return jnp.where(update_IO * w_IO >= 0, w_IO, 0.0)


def lr_scale(shape: tuple[int, ...]) -> float:
    """The factor on the learning rate of an `[in, out]` kernel: sqrt(max(1, out / in)).

    An orthogonal map keeps a vector's norm; spread over more outputs than inputs each output would
    change by less, and this makes up for it.
    """
    return math.sqrt(max(1.0, shape[-1] / shape[-2]))


def frobenius(x_KIO: jax.Array) -> jax.Array:
    """The norm of each matrix of a stack, float32, `[K, 1, 1]`."""
    return jnp.sqrt(jnp.sum(jnp.square(f32(x_KIO)), axis=(-2, -1), keepdims=True))


def f32(x: jax.Array) -> jax.Array:
    """`x` in float32."""
    return x.astype(jnp.float32)


def rounded(x: jax.Array, dtype: Any) -> jax.Array:
    """`x` in `dtype`, rounded here and now: XLA may keep the excess precision of a cast
    or of a product."""
    if dtype == jnp.bfloat16:
        x = lax.reduce_precision(x, exponent_bits=8, mantissa_bits=7)
    return x.astype(dtype)
