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
from jax.ad_checkpoint import checkpoint_name

from nanochat_jax.models.remat import NAME

# Shorter blocks skip more of the masked half, but each is a set of small products and one more
# piece of program to compile, in every layer.
SHORTEST_BLOCK, MOST_BLOCKS = 128, 8


class _Block(NamedTuple):
    """Queries `[start, end)` and the keys `[first, end)` that any of them sees."""

    start: int
    end: int
    first: int


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
    outs, sums = [], []
    for block in _blocks(q_BTNH.shape[1], window):
        q, k, v = _parts(block, q_BTNH, k_BTKH, v_BTKH)
        scores = _scores(block, q, k, window)
        lse_BKGt = jax.nn.logsumexp(scores, axis=-1)
        p = jnp.exp(scores - lse_BKGt[..., None]).astype(q.dtype)
        outs.append(jnp.einsum("BKGts,BsKH->BtKGH", p, v))
        sums.append(lse_BKGt)
    # Named, so that a block that keeps little for its backward pass keeps these two.
    out_BTNH = checkpoint_name(jnp.concatenate(outs, axis=1).reshape(q_BTNH.shape), NAME)
    lse_BKGT = checkpoint_name(jnp.concatenate(sums, axis=-1), NAME)
    return out_BTNH, (q_BTNH, k_BTKH, v_BTKH, out_BTNH, lse_BKGT)


def _backward(window, saved, dout_BTNH):
    q_BTNH, k_BTKH, v_BTKH, out_BTNH, lse_BKGT = saved
    B, T, N, H = q_BTNH.shape
    K = k_BTKH.shape[2]
    # Of the softmax's derivative, what is the same for all keys of a query.
    drawn = jnp.sum(dout_BTNH.astype(jnp.float32) * out_BTNH.astype(jnp.float32), axis=-1)
    drawn_BKGT = drawn.reshape(B, T, K, N // K).transpose(0, 2, 3, 1)
    dq, dk, dv = [], jnp.zeros(k_BTKH.shape, jnp.float32), jnp.zeros(v_BTKH.shape, jnp.float32)
    for block in _blocks(T, window):
        q, k, v = _parts(block, q_BTNH, k_BTKH, v_BTKH)
        dout = _grouped(dout_BTNH[:, block.start : block.end], K)
        rows = slice(block.start, block.end)
        p = jnp.exp(_scores(block, q, k, window) - lse_BKGT[..., rows, None])
        dp = jnp.einsum("BtKGH,BsKH->BKGts", dout, v).astype(jnp.float32)
        ds = (p * (dp - drawn_BKGT[..., rows, None]) / math.sqrt(H)).astype(q.dtype)
        dq.append(jnp.einsum("BKGts,BsKH->BtKGH", ds, k))
        keys = slice(block.first, block.end)
        dk = dk.at[:, keys].add(jnp.einsum("BKGts,BtKGH->BsKH", ds, q).astype(jnp.float32))
        dv = dv.at[:, keys].add(
            jnp.einsum("BKGts,BtKGH->BsKH", p.astype(q.dtype), dout).astype(jnp.float32)
        )
    dq_BTNH = jnp.concatenate(dq, axis=1).reshape(q_BTNH.shape)
    return dq_BTNH, dk.astype(k_BTKH.dtype), dv.astype(v_BTKH.dtype)


block_attention.defvjp(_forward, _backward)


def _blocks(T: int, window: int | None) -> Iterator[_Block]:
    """The blocks of a row, in order; all of one length but the last."""
    length = max(SHORTEST_BLOCK, -(-T // MOST_BLOCKS))
    for start in range(0, T, length):
        first = 0 if window is None else max(0, start - window)
        yield _Block(start, min(T, start + length), first)


def _parts(block: _Block, q_BTNH, k_BTKH, v_BTKH):
    """Queries (grouped by kv head), keys and values of a block, in one type."""
    q = _grouped(q_BTNH[:, block.start : block.end], k_BTKH.shape[2])
    keys = slice(block.first, block.end)
    return q, k_BTKH[:, keys].astype(q.dtype), v_BTKH[:, keys].astype(q.dtype)


def _grouped(x_BtNH: jax.Array, K: int) -> jax.Array:
    B, t, N, H = x_BtNH.shape
    return x_BtNH.reshape(B, t, K, N // K, H)


def _scores(block: _Block, q, k, window: int | None) -> jax.Array:
    """float32 `[B, K, G, t, s]`; -inf where a query does not see a key."""
    scores = jnp.einsum("BtKGH,BsKH->BKGts", q, k).astype(jnp.float32) / math.sqrt(q.shape[-1])
    query_t1, key_1s = (
        jnp.arange(block.start, block.end)[:, None],
        jnp.arange(block.first, block.end),
    )
    behind_ts = query_t1 - key_1s[None]
    seen_ts = behind_ts >= 0 if window is None else (behind_ts >= 0) & (behind_ts <= window)
    return jnp.where(seen_ts[None, None, None], scores, -jnp.inf)
