"""What one reply is asked for, and what has come of it so far."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Literal, NamedTuple

from nanochat_jax.config.decoding import ADJUSTMENTS, BIAS, MAX_BIASES, adjusts

Finish = Literal["stop", "length", "cancelled", "failed"]


# What other programs send where we say None: OpenAI's clients and the original 0, vLLM's -1.
EVERY = (None, 0, -1)  # of top_k: all tokens
ROOM = (None, -1)  # of max_tokens: as many as fit


class RequestRefused(ValueError):
    """A request that no model of this size could answer; the message says what would be taken."""


@dataclasses.dataclass(frozen=True)
class Request:
    """One reply to one prompt, in any spelling of its settings; they are one from here on.

    `max_tokens` None or -1: up to the end of the context. `top_k` None, 0 or -1: all tokens.
    `top_p` 0 leaves the likeliest token alone, as temperature 0 does.
    `alternatives` asks for the likeliest tokens beside each one of the reply, `score_prompt` for
    the prompt's own log-probabilities; a `run_on` reply does not end at a stop token. Where the
    model has adapters beside its weights, one that is not `adapted` is answered without them.
    The last five are told in `adjust.py`; `logit_bias` is (token id, what is added) each, or a
    mapping of them.
    """

    tokens: tuple[int, ...]
    max_tokens: int | None = None
    temperature: float = 1.0
    top_k: int | None = None
    top_p: float = 1.0
    seed: int = 42
    alternatives: bool = False
    score_prompt: bool = False
    run_on: bool = False
    adapted: bool = True
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    min_p: float = 0.0
    logit_bias: tuple[tuple[int, float], ...] | Mapping[int | str, float] = ()

    def __post_init__(self) -> None:
        if self.max_tokens in ROOM:
            object.__setattr__(self, "max_tokens", None)
        if self.top_k in EVERY:
            object.__setattr__(self, "top_k", None)
        if self.top_p == 0:
            object.__setattr__(self, "temperature", min(self.temperature, 0.0))
            object.__setattr__(self, "top_p", 1.0)
        pairs = {int(token): float(bias) for token, bias in dict(self.logit_bias).items()}
        object.__setattr__(self, "logit_bias", tuple(pairs.items()))

    @property
    def adjusts(self) -> bool:
        """Whether its tokens are drawn from other logits than the model's."""
        return bool(self.logit_bias) or adjusts(self)

    @property
    def asks_more(self) -> bool:
        """Whether the plain loop of decoding does not do for it."""
        return self.alternatives or self.adjusts

    def check(self, context: int, vocab_size: int) -> None:
        """Raises RequestRefused for what a model of that context and vocabulary cannot answer."""
        if not 1 <= (n := len(self.tokens)) <= context:
            send = f"the model's context is {context}: send 1 to {context} tokens"
            raise RequestRefused(f"the prompt has {n} tokens, {send}")
        if not all(0 <= token < vocab_size for token in self.tokens):
            raise RequestRefused(f"prompt token ids must lie in 0..{vocab_size - 1}")
        if self.max_tokens is not None and self.max_tokens < 0:
            raise RequestRefused(f"max_tokens={self.max_tokens}; give -1 for as many as fit")
        if self.temperature < 0:
            raise RequestRefused(f"temperature {self.temperature} is negative; 0 is greedy")
        if self.top_k is not None and self.top_k < 1:
            raise RequestRefused(f"top_k={self.top_k}; give 1 or more, or 0 for all")
        if not 0 < self.top_p <= 1:
            raise RequestRefused(f"top_p={self.top_p}; give a number from 0 to 1")
        self._check_adjustments(vocab_size)

    def _check_adjustments(self, vocab_size: int) -> None:
        for name, (low, high, _) in ADJUSTMENTS.items():
            if not low <= (value := getattr(self, name)) <= high:
                raise RequestRefused(f"{name}={value}; give a number from {low:g} to {high:g}")
        if len(self.logit_bias) > MAX_BIASES:
            raise RequestRefused(f"logit_bias has {len(self.logit_bias)}; give up to {MAX_BIASES}")
        for token, bias in self.logit_bias:
            if not 0 <= token < vocab_size:
                raise RequestRefused(f"logit_bias: token ids must lie in 0..{vocab_size - 1}")
            if not BIAS.low <= bias <= BIAS.high:
                allowed = f"give a number from {BIAS.low:g} to {BIAS.high:g}"
                raise RequestRefused(f"logit_bias of token {token} is {bias}; {allowed}")


class ScoredToken(NamedTuple):
    """A token of reply or prompt, its log-probability in nats, the likeliest (id, logprob) there.

    `sampled` is False where a tool forced it: it is scored as if it had been chosen.
    """

    id: int
    sampled: bool
    logprob: float
    top: tuple[tuple[int, float], ...] = ()


def scored_tokens(
    ids: Sequence[int], sampled: Sequence[bool], logprob_T, top_id_TN, top_logprob_TN
) -> list[ScoredToken]:
    """Tokens with what the device found for them, in plain Python numbers."""
    likeliest = zip(top_id_TN.tolist(), top_logprob_TN.tolist(), strict=True)
    tops = (tuple(zip(*pair, strict=True)) for pair in likeliest)
    return list(map(ScoredToken, ids, sampled, logprob_T.tolist(), tops))


class ReplyTokens(NamedTuple):
    """A whole reply without its stop token. Masks: 1 sampled, 0 forced by a tool."""

    tokens: list[int]
    masks: list[int]
    finish_reason: Finish
    logprobs: list[float]


@dataclasses.dataclass(eq=False)
class Generation:
    """A reply on its way. The thread that drives the engine calls `on_update(generation, new)`."""

    request: Request
    on_update: Callable[["Generation", Sequence[ScoredToken]], None] | None = None
    tokens: list[ScoredToken] = dataclasses.field(default_factory=list)
    prompt_scores: list[ScoredToken] = dataclasses.field(default_factory=list)
    cached_tokens: int = 0  # of the prompt: those that did not have to be read
    finish_reason: Finish | None = None
    cancelled: bool = False
    # Seconds of a monotonic clock: its slot was given, its prompt was read, its last token came.
    began_s: float = 0.0
    read_s: float = 0.0
    last_s: float = 0.0

    @property
    def done(self) -> bool:
        return self.finish_reason is not None

    def cancel(self) -> None:
        """Asks the engine to free the slot before its next dispatch; safe from any thread."""
        self.cancelled = True

    def reply(self) -> ReplyTokens:
        """The reply as a value; the stop token that ended it is left out."""
        kept = self.tokens[:-1] if self.finish_reason == "stop" else self.tokens
        ids, logprobs = [token.id for token in kept], [token.logprob for token in kept]
        return ReplyTokens(ids, [int(t.sampled) for t in kept], self.finish_reason, logprobs)


def derive_seed(seed: int, index: int) -> int:
    """A 32-bit seed for sample `index` of a request; index 0 keeps a 32-bit `seed` as it is."""
    folded = (seed ^ (seed >> 32)) if seed >= 0 else seed
    # Near 2^32 over the golden ratio (Knuth's multiplicative hashing): the samples of one request
    # do not get the small numbers that people give the next one.
    return (folded + index * 0x9E3779B1) & 0xFFFFFFFF
