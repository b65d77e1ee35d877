"""Multiple choice without writing: which of a question's letters the model would begin with.

Many prompts a forward pass, of about one length; only the last position of each reaches the output
matrix. What else is in a batch changes nothing: padding lies to the right, attention looks left.
Source: nanochat `scripts/chat_eval.py`.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from nanochat_jax.evals.bpb import placed
from nanochat_jax.models.gpt import GPT, Model
from nanochat_jax.tokenizer import Tokenizer

BUCKET = 128  # rows are a multiple of this long, so that few shapes are compiled


class Choice(NamedTuple):
    """The likeliest letter, and the logits of all letters in their order."""

    letter: str
    logits: np.ndarray


def choose(
    model: Model,
    tokenizer: Tokenizer,
    conversations: Sequence[Mapping[str, Any]],
    *,
    rows: int = 8,
    prompts: Sequence[Sequence[int]] | None = None,
) -> list[Choice]:
    """The letter of each conversation (as a categorical task gives it), first one on ties.

    Args:
        rows: prompts of a forward pass.
        prompts: their ids, if they were rendered (and cut) before.

    Raises:
        ValueError: a letter that is not one token.
    """
    letters = [list(c["letters"]) for c in conversations]
    options = [[letter_id(tokenizer, letter) for letter in row] for row in letters]
    if prompts is None:
        prompts = [tokenizer.render_for_completion(c) for c in conversations]
    pad = tokenizer.get_bos_token_id()
    found = option_logits(model, prompts, options, pad=pad, rows=rows)
    return [Choice(row[int(x.argmax())], x) for row, x in zip(letters, found, strict=True)]


def letter_id(tokenizer: Tokenizer, letter: str) -> int:
    """The one token of a letter.

    Raises:
        ValueError: it has more than one.
    """
    ids = tokenizer.encode(letter)
    if len(ids) != 1:
        raise ValueError(
            f"the choice {letter!r} is {len(ids)} tokens; only letters of one token can be compared"
        )
    return ids[0]


def option_logits(
    model: Model,
    prompts: Sequence[Sequence[int]],
    options: Sequence[Sequence[int]],
    *,
    pad: int,
    rows: int = 8,
    bucket: int = BUCKET,
) -> list[np.ndarray]:
    """Logits of each prompt's options as its next token, float32, in the order of the prompts."""
    found: list[np.ndarray] = [np.empty(0)] * len(prompts)
    by_length = sorted(range(len(prompts)), key=lambda i: -len(prompts[i]))
    for start in range(0, len(by_length), rows):
        chosen = by_length[start : start + rows]
        width = -(-len(prompts[chosen[0]]) // bucket) * bucket
        ids_BT = np.full((rows, width), pad, np.int32)
        last_B1 = np.zeros((rows, 1), np.int32)
        for row, i in enumerate(chosen):
            ids_BT[row, : len(prompts[i])] = prompts[i]
            last_B1[row] = len(prompts[i]) - 1
        logits_BV = np.asarray(
            next_logits(model.gpt, model.params, placed(model, ids_BT), placed(model, last_B1))
        )
        for row, i in enumerate(chosen):
            found[i] = logits_BV[row, list(options[i])]
    return found


@partial(jax.jit, static_argnums=0)
def next_logits(gpt: GPT, params: Any, ids_BT: jax.Array, last_B1: jax.Array) -> jax.Array:
    """Logits `[B, V]` of what follows position `last_B1` of each row."""

    def forward(gpt: GPT) -> jax.Array:
        x_BTD, _ = gpt.hidden(ids_BT)
        return gpt.logits(jnp.take_along_axis(x_BTD, last_B1[..., None], axis=1))[:, 0]

    return gpt.apply({"params": params}, method=forward)
