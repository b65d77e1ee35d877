"""Choosing the next token of every row under its own settings, with its own random number.

Top-k first, then temperature, then top-p, as in the original's `sample_next_token` (top-p is
ours). On a GPU the kernel of `draw_kernel.py` takes the place of `sample`.
Letters: B rows, V vocabulary.
"""

import jax
import jax.numpy as jnp
from jax import lax

LOWEST = jnp.iinfo(jnp.int32).min
FEW = 64  # the largest top-k for which a CPU sorts: beyond it the search is faster


def sample(
    logits_BV: jax.Array, temperature_B: jax.Array, top_k_B: jax.Array, top_p_B: jax.Array,
    uniform_B: jax.Array,
) -> jax.Array:  # fmt: skip
    """The next token `[B]`, int32; greedy at temperature 0 or top_k 1. Top_k 0 keeps all tokens.

    `uniform_B` in [0, 1) chooses among them.
    """
    greedy_B = (temperature_B <= 0) | (top_k_B == 1)
    best_B = jnp.argmax(logits_BV, axis=-1).astype(jnp.int32)

    def draw(_):
        probs_BV = sampling_probs(logits_BV, temperature_B, top_k_B, top_p_B)
        cdf_BV = jnp.cumsum(probs_BV, axis=-1)
        point_B = uniform_B * cdf_BV[:, -1]
        drawn_B = jnp.sum(cdf_BV <= point_B[:, None], axis=-1).astype(jnp.int32)
        # Scaled by the sum, not by 1: the sum of rounded probabilities is not exactly 1. Even so
        # rounding can put the point on the very end of the distribution.
        return jnp.where(greedy_B | (drawn_B >= logits_BV.shape[-1]), best_B, drawn_B)

    return lax.cond(jnp.all(greedy_B), lambda _: best_B, draw, None)


def uniform(seed_B: jax.Array, step_B: jax.Array) -> jax.Array:
    """One number in [0, 1) per row, by the row's own seed and step: neighbours do not matter."""
    # A number named by (seed, step), not drawn from a stream: a reply that a tool interrupts, or
    # that is sampled beside others, meets the same numbers.
    draw = lambda seed, step: jax.random.uniform(jax.random.fold_in(jax.random.key(seed), step))
    return jax.vmap(draw)(seed_B, step_B)


def sampling_probs(
    logits_BV: jax.Array, temperature_B: jax.Array, top_k_B: jax.Array, top_p_B: jax.Array
) -> jax.Array:
    """The distribution [B, V] a token is drawn from: top-k, then temperature, then top-p.

    Temperature 0 counts as 1 here; `sample` takes the argmax instead.
    """
    scale_B1 = jnp.where(temperature_B > 0, temperature_B, 1.0)[:, None]
    all_BV = lambda x_BV, _: x_BV
    kept_BV = lax.cond(jnp.any(top_k_B > 0), _keep_top_k, all_BV, logits_BV, top_k_B)
    probs_BV = jax.nn.softmax(kept_BV / scale_B1, axis=-1)
    return lax.cond(jnp.any(top_p_B < 1.0), _keep_top_p, all_BV, probs_BV, top_p_B)


def ordered_bits(x: jax.Array) -> jax.Array:
    """int32 keys that sort like the float32 `x`."""
    bits = lax.bitcast_convert_type(x.astype(jnp.float32), jnp.int32)
    return jnp.where(bits < 0, bits ^ 0x7FFFFFFF, bits)


def _threshold(keys_BV: jax.Array, weight_BV: jax.Array, need_B: jax.Array) -> jax.Array:
    """A key t of each row such that those >= t are the fewest whose weights sum to `need_B`.

    A binary search over the bits of the key: exact for every k and p, where a sort of the
    vocabulary would cost more than the model on a small machine. It ends when every row's keys
    weigh just what they need, for a top-k after about half of the bits.
    """

    def unsure(carry):
        i, _, mass_B = carry
        return (i < 32) & jnp.any(mass_B > need_B)

    def narrow(carry):
        i, low_B, mass_B = carry
        guess_B = low_B ^ (jnp.int32(1) << (31 - i))  # the first one turns the sign
        above_B = jnp.sum(jnp.where(keys_BV >= guess_B[:, None], weight_BV, 0.0), axis=-1)
        enough_B = above_B >= need_B
        return i + 1, jnp.where(enough_B, guess_B, low_B), jnp.where(enough_B, above_B, mass_B)

    lowest_B = jnp.full(keys_BV.shape[0], LOWEST, jnp.int32)
    start = jnp.int32(0), lowest_B, jnp.sum(weight_BV, axis=-1)
    return lax.while_loop(unsure, narrow, start)[1]


def _keep_top_k(logits_BV: jax.Array, top_k_B: jax.Array) -> jax.Array:
    """Minus infinity below each row's k-th largest logit; values equal to it all stay."""
    # A CPU reads its vocabulary once for a few of the largest; the search reads it some 20 times.
    floor_B = lax.platform_dependent(logits_BV, top_k_B, cpu=_kth_on_cpu, default=_kth_by_search)
    return jnp.where(ordered_bits(logits_BV) >= floor_B[:, None], logits_BV, -jnp.inf)


def _kth_on_cpu(logits_BV: jax.Array, top_k_B: jax.Array) -> jax.Array:
    few = jnp.all(top_k_B <= FEW)
    return lax.cond(few, _kth_of_few, _kth_by_search, logits_BV, top_k_B)


def _kth_of_few(logits_BV: jax.Array, top_k_B: jax.Array) -> jax.Array:
    """The key of each row's k-th largest logit for k up to `FEW`; the lowest key for k = 0."""
    top_BF = lax.top_k(logits_BV, min(FEW, logits_BV.shape[-1]))[0]
    last_B1 = jnp.clip(top_k_B - 1, 0, top_BF.shape[1] - 1)[:, None]
    kth_B = jnp.take_along_axis(top_BF, last_B1, axis=1)[:, 0]
    every_B = (top_k_B <= 0) | (top_k_B >= logits_BV.shape[-1])
    return jnp.where(every_B, LOWEST, ordered_bits(kth_B))


def _kth_by_search(logits_BV: jax.Array, top_k_B: jax.Array) -> jax.Array:
    """The same for any k, by `_threshold`."""
    V = logits_BV.shape[-1]
    need_B = jnp.where(top_k_B > 0, jnp.minimum(top_k_B, V), V).astype(jnp.float32)
    return _threshold(ordered_bits(logits_BV), jnp.ones_like(logits_BV), need_B)


def _keep_top_p(probs_BV: jax.Array, top_p_B: jax.Array) -> jax.Array:
    """Zero outside the smallest set of likeliest tokens that holds `top_p_B` of the mass."""
    keys_BV = ordered_bits(probs_BV)
    need_B = jnp.where(top_p_B < 1.0, top_p_B * jnp.sum(probs_BV, axis=-1), 0.0)
    floor_B = _threshold(keys_BV, probs_BV, need_B)
    kept_BV = jnp.where(keys_BV >= floor_B[:, None], probs_BV, 0.0)
    return jnp.where(top_p_B[:, None] < 1.0, kept_BV, probs_BV)
