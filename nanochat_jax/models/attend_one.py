"""Attention of one new token a row on NVIDIA GPUs: one kernel from the projections to the output.

What XLA does in a dozen kernels a layer (rotate, norm, write into the cache, scores, softmax, sum)
is one here, because the gaps between small kernels take longer than the kernels. Keys and values
are read once, only those the row has. `attend` of `models/attention.py` says what is computed.
Source of splitting the keys and merging the parts: arXiv:2205.14135, arXiv:2311.01282.
Letters: B rows, K kv heads, G query heads each, S cached tokens, H head width, J splits.
"""

import math
from functools import partial

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton

Pair = tuple[jax.Array, jax.Array]
BLOCK = 64  # keys read at once
# About five for each multiprocessor of an H100: the keys are split until there are so many. A d20
# has as many with 64 rows, and then nothing is split and no kernel merges the parts.
PROGRAMS = 640
NOTHING = -1e30  # below every score; a true infinity would make 0 x inf when parts are merged


def attend_one(
    heads_BMH: jax.Array, tables: Pair, past: Pair, length_B: jax.Array,
    *, values_BKH: jax.Array | None = None,
    window: int | None, eps: float, qk_scale: float, interpret=False,
) -> tuple[jax.Array, Pair]:  # fmt: skip
    """(output `[B, N, H]`, the layer's keys and values with the new token at `length_B`).

    Args:
        heads_BMH: N queries, K keys and K values as projected, neither rotated nor normed: M is
            N + 2 K, as one product gives them. H is a power of two.
        tables: cosines and sines `[B, 1, 1, H/2]` of the new positions.
        past: keys and values `[B, S, K, H]`; they are written in place.
        values_BKH: the new token's values, where they are not those of `heads_BMH`.
        window: how many earlier positions are seen; None: all.
    """
    (B, M, H), (S, K) = heads_BMH.shape, past[0].shape[1:3]
    N = M - 2 * K
    values, first_value = (heads_BMH, N + K) if values_BKH is None else (values_BKH, 0)
    # One program a row and head would leave most of the card idle at small batches, so the keys are
    # split too, each part with a softmax of its own, and the parts are merged at the end.
    most = -(-S // BLOCK)
    splits = max(1, min(most, -(-PROGRAMS // (B * K))))
    span = -(-most // splits) * BLOCK
    splits = -(-S // span)
    cos_Bh, sin_Bh = (table.reshape(B, H // 2) for table in tables)
    # A single part is the whole: nothing is left to merge.
    out_type = heads_BMH.dtype if splits == 1 else jnp.float32
    part = lambda dtype, *last: jax.ShapeDtypeStruct((B, K, splits, N // K, *last), dtype)
    cache = lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype)
    out_BKJGH, top_BKJG, sum_BKJG, *new = pl.pallas_call(
        partial(
            _kernel, heads=(N, first_value), window=window, eps=eps, qk_scale=qk_scale, span=span
        ),
        grid=(B, K, splits),
        out_shape=(part(out_type, H), part(jnp.float32), part(jnp.float32), *map(cache, past)),
        input_output_aliases={5: 3, 6: 4},  # the cache is written in place
        compiler_params=triton.CompilerParams(num_warps=4, num_stages=3),
        interpret=interpret,
        name="attend_one",
    )(length_B, heads_BMH, values, cos_Bh, sin_Bh, *past)
    if splits == 1:
        return out_BKJGH.reshape(B, N, H), tuple(new)
    weight_BKJG = jnp.exp(top_BKJG - top_BKJG.max(axis=2, keepdims=True))
    out_BKGH = (out_BKJGH * weight_BKJG[..., None]).sum(axis=2)
    out_BKGH /= (sum_BKJG * weight_BKJG).sum(axis=2)[..., None]
    return out_BKGH.reshape(B, N, H).astype(heads_BMH.dtype), tuple(new)


def _kernel(
    length_ref, heads_ref, new_value_ref, cos_ref, sin_ref, keys_ref, values_ref,
    out_ref, top_ref, sum_ref, new_keys_ref, new_values_ref,
    *, heads: tuple[int, int], window: int | None, eps: float, qk_scale: float, span: int,
):  # fmt: skip
    """One row, one kv head, one part of the cached tokens; float32 inside."""
    row, head, part = pl.program_id(0), pl.program_id(1), pl.program_id(2)
    (S, _, H), (N, first_value), G = keys_ref.shape[1:], heads, out_ref.shape[3]
    length = length_ref[row]
    lane_H = jnp.arange(H)
    left_H = lane_H < H // 2
    angle_H = jnp.where(left_H, lane_H, lane_H - H // 2)
    partner_H = jnp.where(left_H, lane_H + H // 2, lane_H - H // 2)
    cos_H = cos_ref[row, angle_H].astype(jnp.float32)
    sin_H = sin_ref[row, angle_H].astype(jnp.float32)
    sin_H = jnp.where(left_H, sin_H, -sin_H)

    def rotated(n):
        x_H, other_H = (heads_ref[row, n, i].astype(jnp.float32) for i in (lane_H, partner_H))
        x_H = x_H * cos_H + other_H * sin_H
        x_H = x_H * lax.rsqrt(jnp.sum(x_H * x_H) / H + eps) * qk_scale
        return x_H.astype(heads_ref.dtype).astype(jnp.float32)

    queries = [rotated(head * G + g) * (1.0 / math.sqrt(H)) for g in range(G)]
    key_H = rotated(N + head)
    value_H = new_value_ref[row, first_value + head, lane_H].astype(jnp.float32)
    first, behind = part * span, jnp.minimum((part + 1) * span, S)
    mine = (first <= length) & (length < behind)
    # The new token is taken from here: what is being written is not read again.
    for ref, x_H in ((new_keys_ref, key_H), (new_values_ref, value_H)):
        at = ref.at[row, length, head, lane_H]
        triton.store(at, x_H.astype(ref.dtype), mask=jnp.broadcast_to(mine, (H,)))

    def start(q_H):
        top = jnp.where(mine, jnp.sum(q_H * key_H), NOTHING)
        return jnp.where(mine, value_H, 0.0), top, mine.astype(jnp.float32)

    oldest = jnp.int32(0) if window is None else jnp.maximum(length - window, 0)
    low, high = jnp.maximum(first, oldest), jnp.minimum(behind, length)

    def fold(i, parts):
        at_C = low + i * BLOCK + jnp.arange(BLOCK)
        there_C = at_C < high
        load = partial(triton.load, mask=jnp.broadcast_to(there_C[:, None], (BLOCK, H)), other=0.0)
        read = lambda ref: load(ref.at[row, at_C[:, None], head, lane_H[None]]).astype(jnp.float32)
        keys_CH, values_CH = read(keys_ref), read(values_ref)
        return [
            merged(q_H, *before, there_C, keys_CH, values_CH)
            for q_H, before in zip(queries, parts, strict=True)
        ]

    def merged(q_H, out_H, top, total, there_C, keys_CH, values_CH):
        score_C = jnp.where(there_C, jnp.sum(keys_CH * q_H[None], axis=1), NOTHING)
        new_top = jnp.maximum(top, jnp.max(score_C))
        weight_C = jnp.where(there_C, jnp.exp(score_C - new_top), 0.0)
        kept = jnp.exp(top - new_top)
        out_H = out_H * kept + jnp.sum(values_CH * weight_C[:, None], axis=0)
        return out_H, new_top, total * kept + jnp.sum(weight_C)

    blocks = pl.cdiv(jnp.maximum(high - low, 0), BLOCK)
    parts = lax.fori_loop(0, blocks, fold, [start(q_H) for q_H in queries])
    for g, (out_H, top, total) in enumerate(parts):
        out_H = out_H / total if out_ref.shape[2] == 1 else out_H
        out_ref[row, head, part, g, lane_H] = out_H.astype(out_ref.dtype)
        top_ref[row, head, part, g], sum_ref[row, head, part, g] = top, total
