"""The loss, in nats a token: from logits, or in tiles of tokens so that they never all exist.

At a vocabulary of 65,536 the float32 logits of one micro-batch of 32 x 2,048 tokens take 17 GB, and
as much again for their gradient: more than all else that a step of d20 keeps. In tiles, the forward
pass also takes both gradients of a tile while its logits are at hand, and the backward pass only
scales what lies ready. Source: the idea is Liger's fused linear cross entropy (arXiv:2410.10989).
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

# Of float32 logits: enough to keep a GPU busy; a few more arrays are as large. On a CPU so few that
# a core's tile stays in its cache and its pages in the process: a quarter of the loss's time. But
# each tile reads and writes the output matrix's gradient: with a large vocabulary, tiles of few
# tokens take twice as long.
TILE_BYTES, CPU_TILE_BYTES, CPU_TILE_ROWS = 2**30, 2**22, 256
# exp(64) x a vocabulary is far below what float32 holds, exp(-64) far above what it loses.
UNSHIFTED = 64.0


def token_nll(logits_BTV: jax.Array, targets_BT: jax.Array) -> jax.Array:
    """Cross entropy of each target, float32 [B, T]; 0 where the target is -1 (ignored)."""
    # In float32: a bfloat16 has 8 bits, and the sum of a vocabulary's exponentials needs more.
    logits_BTV = logits_BTV.astype(jnp.float32)
    # -1 would count from the end: any real index does, since the mask below removes the result.
    safe_BT1 = jnp.maximum(targets_BT, 0)[..., None]
    picked_BT = jnp.take_along_axis(logits_BTV, safe_BT1, axis=-1)[..., 0]
    nll_BT = jax.nn.logsumexp(logits_BTV, axis=-1) - picked_BT
    return jnp.where(targets_BT >= 0, nll_BT, 0.0)


def weighted_loss(
    gpt: Any, params: Any, inputs_BT: jax.Array, targets_BT: jax.Array, weights_BT: jax.Array
) -> jax.Array:
    """Sum over tokens of weight x nll of a `GPT` with those parameters, float32, in tiles."""
    x_BTD, _ = gpt.apply({"params": params}, inputs_BT, method="hidden")
    rows = x_BTD.reshape(-1, x_BTD.shape[-1]), params["lm_head"]["kernel"]
    head = Head(gpt.cfg.logit_softcap, gpt.cfg.softcap_dtype, gpt.cfg.vocab_size)
    return weighted_nll(*rows, targets_BT.reshape(-1), weights_BT.reshape(-1), head)


def soft_capped(z_V: jax.Array, softcap: float, dtype: str) -> tuple[jax.Array, jax.Array | None]:
    """(cap x tanh(z / cap) in float32, that tanh) of logits, computed in the type of the era; with
    a cap of 0 (the logits as they are, None)."""
    if not softcap:
        return z_V.astype(jnp.float32), None
    z_V = z_V.astype(jnp.float32) if dtype == "float32" else z_V
    cap = jnp.asarray(softcap, z_V.dtype)
    tanh_V = jnp.tanh(z_V / cap)
    return (cap * tanh_V).astype(jnp.float32), tanh_V


class Head(NamedTuple):
    """How hidden states become logits: soft cap (0: none), its type, vocabulary without padding."""

    softcap: float
    softcap_dtype: str
    vocab_size: int


def tile_rows(tokens: int, vocab_size: int, on_cpu: bool = False) -> int:
    """Tokens of a tile: as many as `TILE_BYTES` of logits hold, in tiles of one size. On a CPU as
    many as `CPU_TILE_BYTES` hold, or `CPU_TILE_ROWS` where those are more."""
    most = TILE_BYTES // (4 * vocab_size)
    if on_cpu:
        most = min(most, max(CPU_TILE_ROWS, CPU_TILE_BYTES // (4 * vocab_size)))
    return -(-tokens // -(-tokens // max(1, most)))


@partial(jax.custom_vjp, nondiff_argnums=(4,))
def weighted_nll(
    x_ND: jax.Array, kernel_DV: jax.Array, targets_N: jax.Array, weights_N: jax.Array, head: Head
) -> jax.Array:
    """Sum over tokens of weight x cross entropy, in nats, float32; targets of -1 count nothing.

    Args:
        x_ND: what enters the output matrix, in the compute type.
        kernel_DV: the output matrix, padded rows of the vocabulary included.
    """
    # Asked for the value alone, as an evaluation does: no gradient is made, or held beside it.
    return _where_it_runs(_value, head, x_ND, kernel_DV, targets_N, weights_N)


def _where_it_runs(run: Callable[..., Any], head: Head, *arrays: jax.Array) -> Any:
    """`run(head, on_cpu, *arrays)`, compiled for the one or the other."""
    on = lambda cpu: partial(run, head, cpu)
    return lax.platform_dependent(*arrays, cpu=on(True), default=on(False))


def _value(head, on_cpu, x_ND, kernel_DV, targets_N, weights_N):
    kernel = _kernel(x_ND, kernel_DV, head)

    def tile(rows):
        x_nD, targets_n, weights_n = rows
        return _weighted(_Logits.of(x_nD, kernel, targets_n, head).nll_n, weights_n)

    weights_N = jnp.where(targets_N >= 0, weights_N, 0.0)
    return lax.map(tile, _tiles(head, on_cpu, x_ND, targets_N, weights_N)).sum()


class _Logits(NamedTuple):
    """Of the tokens of one tile: capped logits, what the cap did, the sum's logarithm, the loss."""

    capped_nV: jax.Array
    tanh_nV: jax.Array | None
    hot_nV: jax.Array
    lse_n1: jax.Array
    nll_n: jax.Array

    @classmethod
    def of(cls, x_nD: jax.Array, kernel_DV: jax.Array, targets_n: jax.Array, head: Head):
        capped_nV, tanh_nV = soft_capped(x_nD @ kernel_DV, head.softcap, head.softcap_dtype)
        hot_nV = targets_n[:, None] == lax.broadcasted_iota(jnp.int32, capped_nV.shape, 1)
        lse_n1 = _log_of_sum(capped_nV, head.softcap)
        nll_n = lse_n1[:, 0] - jnp.sum(jnp.where(hot_nV, capped_nV, 0.0), axis=-1)
        return cls(capped_nV, tanh_nV, hot_nV, lse_n1, nll_n)


def _log_of_sum(capped_nV: jax.Array, softcap: float) -> jax.Array:
    """log sum exp over the vocabulary, `[n, 1]`."""
    if not softcap or softcap > UNSHIFTED:
        return jax.nn.logsumexp(capped_nV, axis=-1, keepdims=True)
    # The cap bounds every exponential, so that no maximum is looked for first: one reading of the
    # logits less.
    return jnp.log(jnp.sum(jnp.exp(capped_nV), axis=-1, keepdims=True))


def _kernel(x_ND: jax.Array, kernel_DV: jax.Array, head: Head) -> jax.Array:
    """The output matrix of the real vocabulary, in the type that computes."""
    return kernel_DV[:, : head.vocab_size].astype(x_ND.dtype)


def _weighted(nll_n: jax.Array, weights_n: jax.Array) -> jax.Array:
    return jnp.vdot(nll_n, weights_n, precision="highest")


def _forward(x_ND, kernel_DV, targets_N, weights_N, head):
    return _where_it_runs(_value_and_gradients, head, x_ND, kernel_DV, targets_N, weights_N)


def _value_and_gradients(head, on_cpu, x_ND, kernel_DV, targets_N, weights_N):
    kernel = _kernel(x_ND, kernel_DV, head)
    weights_N = jnp.where(targets_N >= 0, weights_N, 0.0)
    tiles = _tiles(head, on_cpu, x_ND, targets_N, weights_N)
    # A CPU's product over the tokens is slow where its left side lies the other way round.
    turned = lambda x_nD: lax.optimization_barrier(x_nD.T) if on_cpu else x_nD.T

    def tile(dkernel_DV, rows):
        x_nD, targets_n, weights_n = rows
        z = _Logits.of(x_nD, kernel, targets_n, head)
        dz_nV = weights_n[:, None] * (jnp.exp(z.capped_nV - z.lse_n1) - z.hot_nV)
        if z.tanh_nV is not None:
            dz_nV *= 1.0 - jnp.square(z.tanh_nV.astype(jnp.float32))
        # In the compute type before the products: in float32 they would run at half the speed.
        dz_nV = dz_nV.astype(x_nD.dtype)
        dkernel_DV += jnp.matmul(turned(x_nD), dz_nV, preferred_element_type=jnp.float32)
        return dkernel_DV, (_weighted(z.nll_n, weights_n), dz_nV @ kernel.T)

    zero = jnp.zeros(kernel.shape, jnp.float32)
    if tiles[0].shape[0] == 1:  # no loop, and no sum carried through it
        dkernel_DV, (loss, dx) = tile(zero, jax.tree.map(lambda x: x[0], tiles))
    else:
        dkernel_DV, (loss, dx) = lax.scan(tile, zero, tiles)
    dx_ND = dx.reshape(-1, x_ND.shape[1])[: len(x_ND)]
    padding = kernel_DV.shape[1] - head.vocab_size
    dkernel_DV = jnp.pad(dkernel_DV, ((0, 0), (0, padding)))
    return loss.sum(), (dx_ND, dkernel_DV.astype(kernel_DV.dtype))


def _backward(head, saved, cotangent):
    dx_ND, dkernel_DV = saved
    scale = lambda a: (cotangent * a.astype(jnp.float32)).astype(a.dtype)
    return scale(dx_ND), scale(dkernel_DV), None, None


weighted_nll.defvjp(_forward, _backward)


def _tiles(
    head: Head, on_cpu: bool, x_ND: jax.Array, targets_N: jax.Array, *more_N: jax.Array
) -> tuple[Any, ...]:
    """The arrays cut into tiles `[tiles, rows, ...]`; the last is filled with targets of -1."""
    N = len(x_ND)
    rows = tile_rows(N, head.vocab_size, on_cpu)
    extra = math.ceil(N / rows) * rows - N
    cut = lambda a, fill: jnp.pad(
        a, ((0, extra), *[(0, 0)] * (a.ndim - 1)), constant_values=fill
    ).reshape(-1, rows, *a.shape[1:])
    return cut(x_ND, 0), cut(targets_N, -1), *(cut(a, 0) for a in more_N)
