"""Causal attention of whole rows in blocks of queries: no array ever has two sequence axes.

Softmax attention needs, for the queries of one block, the keys up to the block's end (or from the
window's beginning) and nothing else. So a row of `T` tokens is walked in blocks: scores of a block
are made, used and forgotten, and the backward pass makes them again from queries, keys and the
saved logarithm of each query's sum. What is kept for it is `[B, T]`-sized; plain attention keeps
every score, which at T = 2,048 is more than all other activations of a layer together.
Source: Dao et al. 2022, "FlashAttention" (arXiv 2205.14135), the recomputation; here a block sees
all of its keys at once, so no running maximum is needed.
"""

import math
from collections.abc import Iterator
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.ad_checkpoint import checkpoint_name

from nanochat_jax.models.remat import ATTENTION

# Shorter blocks skip more of the masked half, but each is a set of small products and one more
# piece of program to compile, in every layer.
SHORTEST_BLOCK, MOST_BLOCKS = 128, 8


class _Block(NamedTuple):
    """Queries `[start, end)` and the keys `[first, end)` that any of them sees."""

    start: int
    end: int
    first: int

    @property
    def rows(self) -> slice:
        return slice(self.start, self.end)

    @property
    def keys(self) -> slice:
        return slice(self.first, self.end)


@partial(jax.custom_vjp, nondiff_argnums=(3,))
def block_attention(
    q_BTNH: jax.Array, k_BTKH: jax.Array, v_BTKH: jax.Array, window: int | None = None
) -> jax.Array:
    """Softmax attention `[B, T, N, H]`: position p sees the keys from p - window to p.

    Without a window p sees every key up to its own. Query head n uses kv head n // (N / K). Scores
    and softmax are float32, the products run in the type of the inputs.
    """
    return _forward(q_BTNH, k_BTKH, v_BTKH, window)[0]


def _forward(q_BTNH, k_BTKH, v_BTKH, window):
    q_BKGTH = _grouped(q_BTNH, k_BTKH.shape[2])
    k_BKTH, v_BKTH = (_heads_first(x.astype(q_BTNH.dtype)) for x in (k_BTKH, v_BTKH))
    outs, sums = [], []
    for block in _blocks(q_BTNH.shape[1], window):
        q, k, v = q_BKGTH[..., block.rows, :], k_BKTH[:, :, block.keys], v_BKTH[:, :, block.keys]
        scores = _scores(block, q, k, window)
        lse_BKGt = jax.nn.logsumexp(scores, axis=-1)
        p = jnp.exp(scores - lse_BKGt[..., None]).astype(q.dtype)
        outs.append(jnp.einsum("BKGts,BKsH->BKGtH", p, v))
        sums.append(lse_BKGt)
    # Named, so that a block that keeps little for its backward pass keeps these two.
    out_BKGTH = checkpoint_name(jnp.concatenate(outs, axis=3), ATTENTION)
    lse_BKGT = checkpoint_name(jnp.concatenate(sums, axis=-1), ATTENTION)
    return _heads_last(out_BKGTH, q_BTNH), (q_BTNH, k_BTKH, v_BTKH, out_BKGTH, lse_BKGT)


def _backward(window, saved, dout_BTNH):
    q_BTNH, k_BTKH, v_BTKH, out_BKGTH, lse_BKGT = saved
    T, H = q_BTNH.shape[1], q_BTNH.shape[3]
    q_BKGTH, dout_BKGTH = (_grouped(x, k_BTKH.shape[2]) for x in (q_BTNH, dout_BTNH))
    k_BKTH, v_BKTH = (_heads_first(x.astype(q_BTNH.dtype)) for x in (k_BTKH, v_BTKH))
    # Of the softmax's derivative, what is the same for all keys of a query.
    drawn_BKGT = jnp.sum(dout_BKGTH.astype(jnp.float32) * out_BKGTH.astype(jnp.float32), axis=-1)
    dq, dk, dv = [], jnp.zeros(k_BKTH.shape, jnp.float32), jnp.zeros(v_BKTH.shape, jnp.float32)
    for block in _blocks(T, window):
        rows, keys = block.rows, block.keys
        q, k, v = q_BKGTH[..., rows, :], k_BKTH[:, :, keys], v_BKTH[:, :, keys]
        dout = dout_BKGTH[..., rows, :]
        p = jnp.exp(_scores(block, q, k, window) - lse_BKGT[..., rows, None])
        dp = jnp.einsum("BKGtH,BKsH->BKGts", dout, v).astype(jnp.float32)
        ds = (p * (dp - drawn_BKGT[..., rows, None]) / math.sqrt(H)).astype(q.dtype)
        dq.append(jnp.einsum("BKGts,BKsH->BKGtH", ds, k))
        summed = lambda w, x: jnp.einsum("BKGts,BKGtH->BKsH", w, x).astype(jnp.float32)
        dk = dk.at[:, :, keys].add(summed(ds, q))
        dv = dv.at[:, :, keys].add(summed(p.astype(q.dtype), dout))
    dq_BTNH = _heads_last(jnp.concatenate(dq, axis=3), q_BTNH)
    back = lambda x_BKTH, like: x_BKTH.transpose(0, 2, 1, 3).astype(like.dtype)
    return dq_BTNH, back(dk, k_BTKH), back(dv, v_BTKH)


block_attention.defvjp(_forward, _backward)


def _blocks(T: int, window: int | None) -> Iterator[_Block]:
    """The blocks of a row, in order; all of one length but the last."""
    length = max(SHORTEST_BLOCK, -(-T // MOST_BLOCKS))
    for start in range(0, T, length):
        first = 0 if window is None else max(0, start - window)
        yield _Block(start, min(T, start + length), first)


def _heads_first(x_BTNH: jax.Array) -> jax.Array:
    """`[B, N, T, H]`, written out: a CPU's products over heads would else turn every block's part
    of it, again in the backward pass (a quarter of attention's time)."""
    return lax.optimization_barrier(x_BTNH.transpose(0, 2, 1, 3))


def _grouped(x_BTNH: jax.Array, K: int) -> jax.Array:
    """Queries `[B, K, G, T, H]`, by the kv head that they use."""
    B, T, N, H = x_BTNH.shape
    return _heads_first(x_BTNH).reshape(B, K, N // K, T, H)


def _heads_last(x_BKGTH: jax.Array, like_BTNH: jax.Array) -> jax.Array:
    return x_BKGTH.transpose(0, 3, 1, 2, 4).reshape(like_BTNH.shape)


def _scores(block: _Block, q, k, window: int | None) -> jax.Array:
    """float32 `[B, K, G, t, s]`; -inf where a query does not see a key."""
    scores = jnp.einsum("BKGtH,BKsH->BKGts", q, k).astype(jnp.float32) / math.sqrt(q.shape[-1])
    query_t1, key_1s = (
        jnp.arange(block.start, block.end)[:, None],
        jnp.arange(block.first, block.end),
    )
    behind_ts = query_t1 - key_1s[None]
    seen_ts = behind_ts >= 0 if window is None else (behind_ts >= 0) & (behind_ts <= window)
    return jnp.where(seen_ts[None, None, None], scores, -jnp.inf)
