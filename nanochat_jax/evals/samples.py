"""What a base model writes: continuations of a few prompts, and texts from nothing.

Source: nanochat `scripts/base_eval.py`, mode `sample`.
"""

from collections.abc import Sequence

from nanochat_jax.evals.kept import Kept
from nanochat_jax.models.gpt import Model
from nanochat_jax.serve.engine import Engine
from nanochat_jax.tokenizer import Tokenizer

# Tokens. The prompts are always the same and continued greedily, so that two checkpoints can be
# compared line by line; free texts show the spread of what a model knows.
CONTINUED, FREE = 16, 128
FREE_SAMPLES = 8


class Continuations:
    """The prompts with their greedy continuations of 16 tokens, by one model after another."""

    def __init__(self, tokenizer: Tokenizer, prompts: Sequence[str]):
        bos = tokenizer.get_bos_token_id()
        self._tokenizer = tokenizer
        self._ids = [[bos, *tokenizer.encode(prompt)] for prompt in prompts]
        self._kept = Kept(self._engine)

    def __call__(self, model: Model) -> list[str]:
        with self._kept(model) as engine:
            replies = engine.complete(self._ids, CONTINUED)
        text = lambda prompt, reply: self._tokenizer.decode(prompt[1:] + reply.tokens)
        return [text(*pair) for pair in zip(self._ids, replies, strict=True)]

    def _engine(self, model: Model) -> Engine:
        max_len = min(max(map(len, self._ids)) + CONTINUED, model.cfg.sequence_len)
        return Engine(model, self._tokenizer, slots=len(self._ids), max_len=max_len)


def free(model: Model, tokenizer: Tokenizer, seed: int = 42) -> list[str]:
    """Eight texts of at most 128 tokens from nothing, temperature 1."""
    engine = Engine(model, tokenizer, slots=FREE_SAMPLES)
    begin = [[tokenizer.get_bos_token_id()]] * FREE_SAMPLES
    replies = engine.complete(begin, FREE, temperature=1.0, seed=seed)
    return [tokenizer.decode(reply.tokens) for reply in replies]
