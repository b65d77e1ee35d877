"""Drawing one token a row on NVIDIA GPUs: top-k, temperature, top-p and the draw in one kernel.

What `sampling_probs` and `sample` of `sampling.py` say, a row a program: it reads its logits
again and again from the nearest cache, where XLA starts a hundred small kernels. Sums are added in
another order than there, so that a point on the border of two tokens can fall on the other one.
Letters: B rows, V vocabulary, C logits read at once.
"""

from functools import partial

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton

from nanochat_jax.serve.engine.sampling import LOWEST, ordered_bits

CHUNK = 8192


def draw(
    logits_BV: jax.Array, temperature_B: jax.Array, top_k_B: jax.Array, top_p_B: jax.Array,
    uniform_B: jax.Array, *, chunk: int = CHUNK, interpret: bool = False,
) -> jax.Array:  # fmt: skip
    """The token `[B]` of each row, int32, where `uniform_B` in [0, 1) chooses.

    The likeliest one at temperature 0 and at top_k 1; top_k 0 and top_p 1 keep all.
    """
    B, V = logits_BV.shape
    chunk = min(chunk, pl.next_power_of_2(V))
    return pl.pallas_call(
        partial(_kernel, chunk=chunk),
        grid=(B,),
        out_shape=jax.ShapeDtypeStruct((B,), jnp.int32),
        compiler_params=triton.CompilerParams(num_warps=16, num_stages=2),
        interpret=interpret,
        name="draw",
    )(logits_BV, temperature_B, top_k_B, top_p_B, uniform_B)


def _kernel(
    logits_ref, temperature_ref, top_k_ref, top_p_ref, uniform_ref, token_ref, *, chunk: int
):
    row, V = pl.program_id(0), logits_ref.shape[1]
    temperature, top_k = temperature_ref[row], top_k_ref[row]
    top_p, uniform = top_p_ref[row], uniform_ref[row]
    greedy = (temperature <= 0) | (top_k == 1)
    nucleus = (top_p < 1.0) & ~greedy
    lane_C = jnp.arange(chunk)

    def read(i):
        at_C = i * chunk + lane_C
        return triton.load(logits_ref.at[row, at_C], mask=at_C < V, other=-jnp.inf)

    def over(fold, start):
        """`fold(so far, logits, number of the chunk)` over the whole row."""
        return lax.fori_loop(0, pl.cdiv(V, chunk), lambda i, x: fold(x, read(i), i), start)

    top = over(lambda top, x_C, _: jnp.maximum(top, jnp.max(x_C)), jnp.float32(-jnp.inf))
    first = lambda x_C, i: jnp.min(jnp.where(x_C == top, i * chunk + lane_C, V))
    best = over(lambda best, x_C, i: jnp.minimum(best, first(x_C, i)), jnp.int32(V))

    def threshold(weigh, need, wanted):
        """The largest key such that the keys from it on weigh at least `need`; all if not wanted.

        Two bits of the key a round, from the highest: three guesses are weighed in one reading.
        """

        def narrow(i, low):
            step = jnp.int32(1) << (30 - 2 * i)
            guesses = [low + step * j for j in (1, 2, 3)]

            def add(sums, x_C, _):
                key_C, weight_C = ordered_bits(x_C), weigh(x_C)
                heavier = lambda guess: jnp.sum(jnp.where(key_C >= guess, weight_C, 0.0))
                return [s + heavier(guess) for s, guess in zip(sums, guesses, strict=True)]

            sums = over(add, [jnp.float32(0)] * 3)
            for guess, total in zip(guesses, sums, strict=True):
                low = jnp.where(total >= need, guess, low)
            return low

        return lax.fori_loop(0, 16 * wanted.astype(jnp.int32), narrow, jnp.int32(LOWEST))

    scale = 1.0 / jnp.where(temperature > 0, temperature, 1.0)
    k = jnp.minimum(top_k, V).astype(jnp.float32)
    low_k = threshold(jnp.ones_like, k, (top_k > 0) & ~greedy)
    weigh = lambda low: (
        lambda x_C: jnp.where(ordered_bits(x_C) >= low, jnp.exp((x_C - top) * scale), 0.0)
    )
    add_up = lambda low: over(lambda s, x_C, _: s + jnp.sum(weigh(low)(x_C)), jnp.float32(0))
    low = jnp.maximum(low_k, threshold(weigh(low_k), top_p * add_up(low_k), nucleus))
    point = uniform * add_up(low)

    def find(found, x_C, i):
        """(weight before the chunk that holds the point, its number, weight so far)."""
        before, number, total = found
        more = total + jnp.sum(weigh(low)(x_C))
        here = (total <= point) & (more > point)
        return jnp.where(here, total, before), jnp.where(here, i, number), more

    before, number, _ = over(find, (jnp.float32(0), jnp.int32(0), jnp.float32(0)))
    weight_C = weigh(low)(read(number))
    place = jnp.int32(0)  # how many tokens of the chunk lie before the point, bit by bit
    for step in [1 << bit for bit in reversed(range(chunk.bit_length() - 1))]:
        mass = before + jnp.sum(jnp.where(lane_C < place + step, weight_C, 0.0))
        place = jnp.where(mass <= point, place + step, place)
    drawn = number * chunk + place
    # Rounding can put the point on the very end of the distribution, or between two tokens.
    possible = jnp.sum(jnp.where(lane_C == place, weight_C, 0.0)) > 0
    token_ref[row] = jnp.where(greedy | ~possible, best, drawn)
