"""The letters of conversations in one call, as the golden evaluations of the original have them."""

from typing import NamedTuple

import numpy as np

from nanochat_jax.evals import categorical


class Chosen(NamedTuple):
    """The likeliest letter, and the logits of all letters in their order."""

    letter: str
    logits: np.ndarray


def choose(model, tokenizer, conversations, rows=None) -> list[Chosen]:
    """The letter of each conversation, `rows` prompts a forward pass on each device."""
    prompts = [categorical.letter_prompt(tokenizer, i, c) for i, c in enumerate(conversations)]
    found = {}
    for some in categorical.option_logits(
        model, prompts, pad=tokenizer.get_bos_token_id(), rows=rows
    ):
        found |= some
    return [
        Chosen(categorical.likeliest(c, found[i]), found[i]) for i, c in enumerate(conversations)
    ]
