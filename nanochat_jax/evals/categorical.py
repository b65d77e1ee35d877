"""Multiple choice without writing: which of a question's letters the model would begin with.

Many prompts a forward pass, padded to one of a few lengths (each is compiled); only the last
position of each reaches the output matrix. What else is in a batch changes nothing: padding lies
to the right, attention looks left.
Source: nanochat `scripts/chat_eval.py`.
"""

import collections
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from nanochat_jax import sharding
from nanochat_jax.evals.core.batches import LENGTHS, fit
from nanochat_jax.evals.placing import batch_tokens, in_flight, mesh_of, placed
from nanochat_jax.models.gpt import GPT, Model
from nanochat_jax.tokenizer import Tokenizer

Logits = dict[Hashable, np.ndarray]


class LetterPrompt(NamedTuple):
    """A prompt, and the ids of the letters that may follow it."""

    key: Hashable
    prompt: Sequence[int]
    options: Sequence[int]


def letter_prompt(
    tokenizer: Tokenizer, key: Hashable, conversation: Mapping[str, Any]
) -> LetterPrompt:
    """The prompt of a conversation, as a categorical task gives it; raises as `letter_id`."""
    prompt = tokenizer.render_for_completion(conversation)
    return LetterPrompt(key, prompt, [letter_id(tokenizer, x) for x in conversation["letters"]])


def likeliest(conversation: Mapping[str, Any], logits: np.ndarray) -> str:
    """The letter of the largest logit, the first one on ties."""
    # Among the letters alone: a small model's likeliest token of all is often none of them, and
    # its preference would be lost. In one forward pass, too, where writing takes one a token.
    return conversation["letters"][int(logits.argmax())]


def letter_id(tokenizer: Tokenizer, letter: str) -> int:
    """The one token of a letter; ValueError where it has more."""
    # Without a blank before it: an answer begins with the letter itself, as tasks render it.
    ids = tokenizer.encode(letter)
    if len(ids) != 1:
        why = "only letters of one token can be compared"
        raise ValueError(f"the choice {letter!r} is {len(ids)} tokens; {why}")
    return ids[0]


def option_logits(
    model: Model, prompts: Iterable[LetterPrompt], *, pad: int, rows: int | None = None
) -> Iterator[Logits]:
    """Logits of every prompt's options as its next token, float32; key -> them, batch by batch."""
    devices = mesh.size if (mesh := mesh_of(model)) else 1
    rows_of = lambda width: devices * (rows or max(1, batch_tokens() // width))
    started = (
        (batch, _dispatch(model, batch, width, rows_of(width), pad))
        for width, batch in _batches(prompts, rows_of)
    )
    for batch, logits_BV in in_flight(started):
        logits_BV = np.asarray(logits_BV)
        yield {one.key: logits_BV[row, list(one.options)] for row, one in enumerate(batch)}


Batches = Iterator[tuple[int, list[LetterPrompt]]]


def _batches(prompts: Iterable[LetterPrompt], rows_of: Callable[[int], int]) -> Batches:
    """(width, prompts that fit in it): full batches first, then what is left, longest first."""
    pools: dict[int, list[LetterPrompt]] = collections.defaultdict(list)
    for one in prompts:
        width = fit(len(one.prompt), LENGTHS)
        pools[width].append(one)
        if len(pools[width]) == rows_of(width):
            yield width, pools.pop(width)
    left = [(width, one) for width in sorted(pools, reverse=True) for one in pools[width]]
    while left:
        width = left[0][0]
        yield width, [one for _, one in left[: rows_of(width)]]
        left = left[rows_of(width) :]


def _dispatch(
    model: Model, batch: Sequence[LetterPrompt], width: int, rows: int, pad: int
) -> jax.Array:
    """Starts a batch: logits `[B, V]`, which need not be done."""
    ids_BT, last_B1 = np.full((rows, width), pad, np.int32), np.zeros((rows, 1), np.int32)
    for row, one in enumerate(batch):
        ids_BT[row, : len(one.prompt)] = one.prompt
        last_B1[row] = len(one.prompt) - 1
    arrays = placed(model, ids_BT), placed(model, last_B1)
    return _run(model.gpt, mesh_of(model), model.params, *arrays)


@partial(jax.jit, static_argnums=(0, 1))
def _run(gpt: GPT, mesh: Mesh | None, params: Any, *arrays: jax.Array) -> jax.Array:
    """The logits on every device."""
    logits_BV = gpt.apply({"params": params}, *arrays, method=_next_logits)
    if mesh is None:
        return logits_BV
    return jax.lax.with_sharding_constraint(logits_BV, sharding.replicated(mesh))


def _next_logits(gpt: GPT, ids_BT: jax.Array, last_B1: jax.Array) -> jax.Array:
    """Logits `[B, V]` of what follows position `last_B1` of each row."""
    x_BTD, _ = gpt.hidden(ids_BT)
    return gpt.logits(jnp.take_along_axis(x_BTD, last_B1[..., None], axis=1))[:, 0]
