"""Moving logits before a token is drawn: biases, penalties for what was said, the min-p floor.

The loop of a dispatch in which no row asks for it knows nothing of it. In this order: the bias is
added; logits of all tokens that were read or written are divided by the repetition penalty if
positive, else multiplied (Keskar et al. 2019, arXiv:1909.05858, as transformers has it); presence
and frequency penalties of written tokens are subtracted (OpenAI's API reference); then everything
less likely than `min_p` times the likeliest, at the row's temperature, goes (Nguyen et al. 2024,
arXiv:2407.01082). `sample` cuts by top-k and top-p what is left.
Letters: B rows, V vocabulary, S cached tokens, E biases of a row.
"""

from typing import NamedTuple

import flax.struct
import jax
import jax.numpy as jnp
from jax import lax


@flax.struct.dataclass
class Adjustments:
    """What rows ask for at the start of a dispatch; the host's copy is `rows.AdjustedRows`.

    A token id outside of the vocabulary is none.
    """

    asked_B: jax.Array  # bool; the other rows' numbers change nothing
    repetition_B: jax.Array  # 1: off, as 0 is for the next three
    presence_B: jax.Array
    frequency_B: jax.Array
    min_p_B: jax.Array
    bias_id_BE: jax.Array
    bias_BE: jax.Array
    past_BS: jax.Array  # the row's tokens, prompt and reply
    prompt_B: jax.Array  # how many of them are the prompt's
    V: int = flax.struct.field(pytree_node=False)


class Tally(NamedTuple):
    """What each row's tokens are so far, and its biases, by token id."""

    written_BV: jax.Array  # int32, how often the reply has it
    read_BV: jax.Array  # bool, the prompt has it
    bias_BV: jax.Array


def tally(asked: Adjustments | None) -> Tally | None:
    """The tally at the start of a dispatch; None where no row asks."""
    if asked is None:
        return None
    zeros_BV = jnp.zeros((len(asked.prompt_B), asked.V), jnp.int32)
    row_B1 = jnp.arange(len(asked.prompt_B))[:, None]
    reply_BS = jnp.arange(asked.past_BS.shape[1])[None] >= asked.prompt_B[:, None]
    past, drop = zeros_BV.at[row_B1, asked.past_BS], dict(mode="drop")
    bias_BV = zeros_BV.astype(jnp.float32).at[row_B1, asked.bias_id_BE].add(asked.bias_BE, **drop)
    written_BV, read_BV = past.add(reply_BS, **drop), past.max(~reply_BS, **drop)
    return Tally(written_BV, read_BV.astype(bool), bias_BV)


def follow(so_far: Tally | None, token_B: jax.Array, running_B: jax.Array) -> Tally | None:
    """The tally after the running rows wrote one more token each."""
    if so_far is None:
        return None
    rows = jnp.arange(len(token_B))
    written_BV = so_far.written_BV.at[rows, token_B].add(running_B.astype(jnp.int32), mode="drop")
    return so_far._replace(written_BV=written_BV)


def adjusted(
    logits_BV: jax.Array, temperature_B: jax.Array, asked: Adjustments | None, so_far: Tally | None
) -> jax.Array:
    """The logits to draw from. Rows that ask for nothing keep theirs to the bit."""
    if asked is None:
        return logits_BV
    # These rows may share the loop for another reason, their scores: then nothing is computed.
    unchanged = lambda x_BV, *_: x_BV
    found = logits_BV, temperature_B, asked, so_far
    return lax.cond(jnp.any(asked.asked_B), _adjusted, unchanged, *found)


def _adjusted(logits_BV, temperature_B, asked: Adjustments, so_far: Tally) -> jax.Array:
    column = lambda x_B: x_B[:, None]
    x_BV = logits_BV + so_far.bias_BV
    repetition_B1, said_BV = column(asked.repetition_B), so_far.written_BV > 0
    less_BV = jnp.where(x_BV > 0, x_BV / repetition_B1, x_BV * repetition_B1)
    x_BV = jnp.where(said_BV | so_far.read_BV, less_BV, x_BV)
    x_BV -= column(asked.presence_B) * said_BV + column(asked.frequency_B) * so_far.written_BV
    # probability / highest < min_p, without the sum that both are divided by.
    scale_B1 = column(jnp.where(temperature_B > 0, temperature_B, 1.0))
    below_BV = (x_BV - jnp.max(x_BV, axis=-1, keepdims=True)) / scale_B1
    return jnp.where(below_BV < jnp.log(column(asked.min_p_B)), -jnp.inf, x_BV)
