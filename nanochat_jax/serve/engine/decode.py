"""The decoding core: pure functions from (params, cache, rows) to tokens.

The host owns the rows (`Rows`: what each slot of the batch is doing) and passes them anew with
every dispatch; the device owns only the cache. A dispatch chooses up to K tokens a row in one
loop, with sampling inside, so the host is asked nothing per token. A row that closes a tool call
pauses until the host has run the tool; its output comes back as forced tokens.
Letters: B rows, K steps of a dispatch, T tokens of a prefill chunk, S cached tokens, V
vocabulary, N alternatives.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import flax.struct
import jax
import jax.numpy as jnp
from jax import lax

from nanochat_jax.models.cache import KVCache
from nanochat_jax.serve.engine.sampling import uniform

Apply = Callable[..., tuple[jax.Array, KVCache]]
Sample = Callable[..., jax.Array]  # as `sampling.sample`


class Specials(NamedTuple):
    """The token ids that steer decoding; -1 where a tokenizer has none."""

    call_start: int
    call_end: int
    stop_tokens: tuple[int, ...]


@flax.struct.dataclass
class Rows:
    """What each row is doing at the start of a dispatch; the host's copy is numpy (`rows.py`)."""

    token_B: jax.Array  # chosen but not yet fed: what the first step reads
    length_B: jax.Array  # tokens in the cache; the first step writes there
    running_B: jax.Array  # bool; the others choose nothing, and what they write is never read
    step_B: jax.Array  # tokens chosen so far: with `seed_B` it names the next random number
    budget_B: jax.Array  # tokens that may still be chosen
    in_call_B: jax.Array  # bool, a tool call is open: the row pauses when it closes
    run_on_B: jax.Array  # bool, the row goes on after a stop token
    temperature_B: jax.Array  # 0: greedy
    top_k_B: jax.Array  # 0: all tokens
    top_p_B: jax.Array  # 1: all tokens
    seed_B: jax.Array  # uint32
    forced_BK: jax.Array  # tokens that are chosen in place of sampled ones, in the first steps
    forced_count_B: jax.Array  # how many of `forced_BK` count


@flax.struct.dataclass
class DecodeOutput:
    """What a dispatch chose: entry [k, b] counts only where `valid_KB`; nats for logprobs."""

    token_KB: jax.Array
    valid_KB: jax.Array
    logprob_KB: jax.Array
    top_id_KBN: jax.Array
    top_logprob_KBN: jax.Array


def score_tokens(logits: jax.Array, tokens: jax.Array, N: int):
    """Log-probabilities of `tokens [...]` by `logits [..., V]`, and of the N likeliest there.

    (own `[...]`, ids `[..., N]`, logprobs `[..., N]`)
    """
    logprobs = jax.nn.log_softmax(logits, axis=-1)
    own = jnp.take_along_axis(logprobs, tokens[..., None], axis=-1)[..., 0]
    top_logprobs, top_ids = lax.top_k(logprobs, N)
    return own, top_ids.astype(jnp.int32), top_logprobs


def decode_chunk(
    apply: Apply,
    sample: Sample,
    specials: Specials,
    N: int,
    params: dict,
    cache: KVCache,
    rows: Rows,
    steps: jax.Array,
) -> tuple[KVCache, DecodeOutput]:
    """Chooses up to `steps` (<= K) tokens for every running row; stops early when none runs.

    The cache must have room for `steps` tokens above each running row's length. With fewer rows
    than the cache has, its first rows are meant and the others stay as they are.
    """
    B, K = rows.forced_BK.shape
    whole, cache = cache, _first_rows(cache, B)

    def choose(carry):
        k, cache, rows, out = carry
        logits_B1V, cache = apply(
            {"params": params}, rows.token_B[:, None], cache, rows.running_B.astype(jnp.int32)
        )
        logits_BV = logits_B1V[:, 0]
        # By the row's own seed and step: a reply does not depend on what else is in the batch.
        uniform_B = uniform(rows.seed_B, rows.step_B)
        token_B = sample(logits_BV, rows.temperature_B, rows.top_k_B, rows.top_p_B, uniform_B)
        forced_B = lax.dynamic_index_in_dim(rows.forced_BK, k, axis=1, keepdims=False)
        token_B = jnp.where(k < rows.forced_count_B, forced_B, token_B)
        # A row that stopped feeds the same token again, to the same place: nothing moves on.
        token_B = jnp.where(rows.running_B, token_B, rows.token_B)
        scores = score_tokens(logits_BV, token_B, N)
        record = partial(lax.dynamic_update_index_in_dim, index=k, axis=0)
        out = jax.tree.map(record, out, DecodeOutput(token_B, rows.running_B, *scores))
        return k + 1, cache, _advance(rows, token_B, specials), out

    def going(carry):
        k, _, rows, _ = carry
        return (k < steps) & jnp.any(rows.running_B)

    cache = cache.replace(length_B=rows.length_B)
    # A while, not a scan: when the last running row stops, the steps that are left cost nothing.
    _, cache, _, out = lax.while_loop(
        going, choose, (jnp.int32(0), cache, rows, _no_output(K, B, N))
    )
    return _with_first_rows(whole, cache), out


def _no_output(K: int, B: int, N: int) -> DecodeOutput:
    """Nothing chosen yet."""
    return DecodeOutput(
        token_KB=jnp.zeros((K, B), jnp.int32),
        valid_KB=jnp.zeros((K, B), bool),
        logprob_KB=jnp.zeros((K, B), jnp.float32),
        top_id_KBN=jnp.zeros((K, B, N), jnp.int32),
        top_logprob_KBN=jnp.zeros((K, B, N), jnp.float32),
    )


def _first_rows(cache: KVCache, count: int) -> KVCache:
    """The first `count` rows of the cache."""
    if count == cache.length_B.shape[0]:
        return cache
    return jax.tree.map(lambda x: x[:count], cache)


def _with_first_rows(whole: KVCache, first: KVCache) -> KVCache:
    """`whole` with its first rows replaced by those of `first`."""
    # Lengths too, though the host's are what counts: every dispatch sets them anew.
    if first.length_B.shape == whole.length_B.shape:
        return first
    put = partial(lax.dynamic_update_slice_in_dim, start_index=0, axis=0)
    return jax.tree.map(put, whole, first)


def _advance(rows: Rows, token_B: jax.Array, specials: Specials) -> Rows:
    """The rows after `token_B` was chosen: who stops, who pauses for the tool."""
    budget_B = rows.budget_B - rows.running_B
    stopped_B = jnp.isin(token_B, jnp.asarray(specials.stop_tokens, jnp.int32))
    closes_B = (token_B == specials.call_end) & rows.in_call_B
    opens_B = token_B == specials.call_start
    goes_on_B = (budget_B > 0) & ~closes_B & (rows.run_on_B | ~stopped_B)
    return rows.replace(
        token_B=token_B,
        running_B=rows.running_B & goes_on_B,
        step_B=rows.step_B + rows.running_B,
        budget_B=budget_B,
        in_call_B=jnp.where(rows.running_B, (rows.in_call_B | opens_B) & ~closes_B, False),
    )


class PrefillInput(NamedTuple):
    """A chunk of a prompt: `count_1` tokens from position `start_1` on, int32.

    `before_1` is the token at `start_1 - 1`: a model with smear mixes its embedding into the first
    new token. It is looked up again, so that a prompt may go on from any prefix that is cached.
    """

    start_1: jax.Array
    before_1: jax.Array
    count_1: jax.Array
    tokens_1T: jax.Array


def prefill_chunk(
    apply: Apply, params: dict, cache_1S: KVCache, chunk: PrefillInput
) -> tuple[KVCache, jax.Array]:
    """Feeds a chunk to a one-row cache; its logits [1, T, V] beside it."""
    cache_1S = cache_1S.replace(length_B=chunk.start_1)
    # Only the embedding of this pass is used: the compiler drops the rest of it.
    _, looked_up = apply({"params": params}, chunk.before_1[:, None], cache_1S, None)
    embed_1D = jnp.where(chunk.start_1[:, None] > 0, looked_up.last_embed_BD, 0)
    cache_1S = cache_1S.replace(last_embed_BD=embed_1D.astype(cache_1S.last_embed_BD.dtype))
    logits_1TV, cache_1S = apply({"params": params}, chunk.tokens_1T, cache_1S, chunk.count_1)
    return cache_1S, logits_1TV


def insert_row(cache: KVCache, cache_1S: KVCache, row: jax.Array) -> KVCache:
    """`cache` with its row `row` replaced; the one-row cache may be longer, its end is cut."""
    put = partial(lax.dynamic_update_slice_in_dim, start_index=row, axis=0)
    insert = lambda old, new: put(old, new[:, : old.shape[1]])
    return cache.replace(
        layers=jax.tree.map(insert, cache.layers, cache_1S.layers),
        last_embed_BD=put(cache.last_embed_BD, cache_1S.last_embed_BD),
    )


def extract_row(cache_1S: KVCache, cache: KVCache, row: jax.Array) -> KVCache:
    """The one-row cache with row `row` of the shorter `cache` written over its beginning."""
    take = partial(lax.dynamic_slice_in_dim, start_index=row, slice_size=1, axis=0)
    put = partial(lax.dynamic_update_slice_in_dim, start_index=0, axis=1)
    extract = lambda old, new: put(old, take(new))
    return cache_1S.replace(
        layers=jax.tree.map(extract, cache_1S.layers, cache.layers),
        last_embed_BD=take(cache.last_embed_BD),
    )


def resize(cache: KVCache, length: int) -> KVCache:
    """The cache with `length` places a row: zeros added, or the end cut."""
    pad = [(0, 0), (0, max(0, length - cache.room)), (0, 0), (0, 0)]
    return cache.replace(layers=jax.tree.map(lambda x: jnp.pad(x, pad)[:, :length], cache.layers))
