"""What a base model writes: continuations of a few prompts, and texts from nothing.

Source: nanochat `scripts/base_eval.py`, mode `sample`.
"""

from collections.abc import Sequence

from nanochat_jax.models.gpt import Model
from nanochat_jax.serve.engine import Engine
from nanochat_jax.tokenizer import Tokenizer

# Tokens. The prompts are always the same and continued greedily, so that two checkpoints can be
# compared line by line; free texts show the spread of what a model knows.
CONTINUED, FREE = 16, 128
FREE_SAMPLES = 8


def continued(model: Model, tokenizer: Tokenizer, prompts: Sequence[str]) -> list[str]:
    """The prompts with their greedy continuations of 16 tokens."""
    ids = [[tokenizer.get_bos_token_id(), *tokenizer.encode(p)] for p in prompts]
    replies = Engine(model, tokenizer, slots=max(1, len(ids))).complete(ids, CONTINUED)
    return [tokenizer.decode(p[1:] + r.tokens) for p, r in zip(ids, replies, strict=True)]


def free(model: Model, tokenizer: Tokenizer, seed: int = 42) -> list[str]:
    """Eight texts of at most 128 tokens from nothing, temperature 1."""
    engine = Engine(model, tokenizer, slots=FREE_SAMPLES)
    begin = [[tokenizer.get_bos_token_id()]] * FREE_SAMPLES
    replies = engine.complete(begin, FREE, temperature=1.0, seed=seed)
    return [tokenizer.decode(reply.tokens) for reply in replies]
