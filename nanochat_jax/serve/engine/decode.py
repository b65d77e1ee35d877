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

from nanochat_jax.models import lora
from nanochat_jax.models.cache import KVCache
from nanochat_jax.serve.engine.adjust import Adjustments, adjusted, follow, tally
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
    # float32, 1: the model with its adapters answers, 0: without; None: it has no adapters
    adapted_B: jax.Array | None = None


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
    apply: Apply, sample: Sample, specials: Specials, N: int,
    params: dict, cache: KVCache, rows: Rows, steps: jax.Array, asked: Adjustments | None = None,
) -> tuple[KVCache, DecodeOutput]:  # fmt: skip
    """Chooses up to `steps` (<= K) tokens for every running row; stops early when none runs.

    The cache must have room for `steps` tokens above each running row's length. With fewer rows
    than the cache has, its first rows are meant and the others stay as they are. `asked` changes
    what is drawn from; the scores are the model's own in any case.
    """
    B, K = rows.forced_BK.shape
    params = lora.of_rows(params, rows.adapted_B)
    whole, cache = cache, jax.tree.map(lambda x: x[:B], cache)

    def choose(carry):
        k, cache, rows, so_far, out = carry
        logits_B1V, cache = apply(
            {"params": params}, rows.token_B[:, None], cache, rows.running_B.astype(jnp.int32)
        )
        logits_BV = logits_B1V[:, 0]
        # By the row's own seed and step: a reply does not depend on what else is in the batch.
        uniform_B = uniform(rows.seed_B, rows.step_B)
        drawn_from_BV = adjusted(logits_BV, rows.temperature_B, asked, so_far)
        token_B = sample(drawn_from_BV, rows.temperature_B, rows.top_k_B, rows.top_p_B, uniform_B)
        forced_B = lax.dynamic_index_in_dim(rows.forced_BK, k, axis=1, keepdims=False)
        token_B = jnp.where(k < rows.forced_count_B, forced_B, token_B)
        # A row that stopped feeds the same token again, to the same place: nothing moves on.
        token_B = jnp.where(rows.running_B, token_B, rows.token_B)
        scores = score_tokens(logits_BV, token_B, N)
        record = partial(lax.dynamic_update_index_in_dim, index=k, axis=0)
        out = jax.tree.map(record, out, DecodeOutput(token_B, rows.running_B, *scores))
        so_far = follow(so_far, token_B, rows.running_B)
        return k + 1, cache, _advance(rows, token_B, specials), so_far, out

    def going(carry):
        k, _, rows, *_ = carry
        return (k < steps) & jnp.any(rows.running_B)

    nothing = lambda dtype, *more: jnp.zeros((K, B, *more), dtype)
    ids, floats = (partial(nothing, dtype) for dtype in (jnp.int32, jnp.float32))
    out = DecodeOutput(ids(), nothing(bool), floats(), ids(N), floats(N))
    start = jnp.int32(0), cache.replace(length_B=rows.length_B), rows, tally(asked), out
    # A while, not a scan: when the last running row stops, the steps that are left cost nothing.
    _, cache, *_, out = lax.while_loop(going, choose, start)
    if B == whole.length_B.shape[0]:
        return cache, out
    # Lengths too, though the host's are what counts: every dispatch sets them anew.
    put = partial(lax.dynamic_update_slice_in_dim, start_index=0, axis=0)
    return jax.tree.map(put, whole, cache), out


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
    """A chunk of a prompt, int32."""

    start_1: jax.Array  # the position it begins at
    # A model with smear mixes the embedding of the token before it into its first one. It is looked
    # up again, so that a prompt may go on from any prefix that is cached.
    before_1: jax.Array
    count_1: jax.Array  # how many of the tokens count
    tokens_1T: jax.Array
    targets_1T: jax.Array  # what follows each token
    adapted_1: jax.Array | None = None  # as `Rows.adapted_B`


def prefill_chunk(apply: Apply, N: int, params: dict, cache_1S: KVCache, chunk: PrefillInput):
    """Feeds a chunk to a one-row cache; (the cache, `score_tokens` of the targets, if N > 0)."""
    params = lora.of_rows(params, chunk.adapted_1)
    cache_1S = cache_1S.replace(length_B=chunk.start_1)
    # Only the embedding of this pass is used: the compiler drops the rest of it.
    _, looked_up = apply({"params": params}, chunk.before_1[:, None], cache_1S, None)
    embed_1D = jnp.where(chunk.start_1[:, None] > 0, looked_up.last_embed_BD, 0)
    cache_1S = cache_1S.replace(last_embed_BD=embed_1D.astype(cache_1S.last_embed_BD.dtype))
    logits_1TV, cache_1S = apply({"params": params}, chunk.tokens_1T, cache_1S, chunk.count_1)
    return cache_1S, score_tokens(logits_1TV, chunk.targets_1T, N) if N else ()


def insert_row(cache: KVCache, cache_1S: KVCache, row_1: jax.Array) -> KVCache:
    """`cache` with a row, if it has it, replaced by what fits of the one-row cache."""

    def inserted():
        put = partial(lax.dynamic_update_slice_in_dim, start_index=row_1[0], axis=0)
        insert = lambda old, new: put(old, new[:, : old.shape[1]])
        embed_BD = insert(cache.last_embed_BD, cache_1S.last_embed_BD)
        layers = jax.tree.map(insert, cache.layers, cache_1S.layers)
        return cache.replace(layers=layers, last_embed_BD=embed_BD)

    # A branch, not `where` or `.at[]`: for those XLA copies a bfloat16 cache whole on a CPU.
    return lax.cond(row_1[0] < cache.length_B.shape[0], inserted, lambda: cache)


def extract_row(cache_1S: KVCache, cache: KVCache, row_1: jax.Array) -> KVCache:
    """The one-row cache with a row of the shorter `cache`, if it has it, over its beginning."""

    def extracted():
        take = partial(lax.dynamic_slice_in_dim, start_index=row_1[0], slice_size=1)
        extract = lambda old, x: lax.dynamic_update_slice_in_dim(old, take(x), 0, axis=1)
        # Without the last embedding: `prefill_chunk` looks it up.
        return cache_1S.replace(layers=jax.tree.map(extract, cache_1S.layers, cache.layers))

    return lax.cond(row_1[0] < cache.length_B.shape[0], extracted, lambda: cache_1S)


def resize(cache: KVCache, length: int) -> KVCache:
    """The cache with `length` places a row: zeros added, or the end cut."""
    pad = [(0, 0), (0, max(0, length - cache.room)), (0, 0), (0, 0)]
    return cache.replace(layers=jax.tree.map(lambda x: jnp.pad(x, pad)[:, :length], cache.layers))
