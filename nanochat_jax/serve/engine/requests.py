"""What one reply is asked for, and what has come of it so far."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

Finish = Literal["stop", "length", "cancelled", "failed"]


class RequestRefused(ValueError):
    """A request that no model of this size could answer; the message says what would be taken."""


@dataclasses.dataclass(frozen=True)
class Request:
    """One reply to one prompt. `max_tokens` None: up to the end of the context.

    `alternatives` asks for the likeliest tokens beside each choice, `score_prompt` for the prompt's
    own log-probabilities; a `run_on` reply does not end at a terminal token.
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


class Choice(NamedTuple):
    """One token of a reply; `sampled` is False where a tool forced it; logprobs in nats."""

    id: int
    sampled: bool
    logprob: float
    top: tuple[tuple[int, float], ...] = ()


class Completion(NamedTuple):
    """A whole reply without its terminal token. Masks: 1 sampled, 0 forced by a tool."""

    tokens: list[int]
    masks: list[int]
    finish_reason: Finish
    logprobs: list[float]


@dataclasses.dataclass(eq=False)
class Job:
    """A request on its way. `on_update(job, new)` runs in the thread that drives the engine."""

    request: Request
    on_update: Callable[["Job", Sequence[Choice]], None] | None = None
    choices: list[Choice] = dataclasses.field(default_factory=list)
    prompt_scores: list[Choice] = dataclasses.field(default_factory=list)
    cached_tokens: int = 0
    finish_reason: Finish | None = None
    cancelled: bool = False

    @property
    def done(self) -> bool:
        return self.finish_reason is not None

    def cancel(self) -> None:
        """Asks the engine to free the slot before its next dispatch; safe from any thread."""
        self.cancelled = True

    def completion(self) -> Completion:
        """The reply as a value; the terminal token that ended it is left out."""
        kept = self.choices[:-1] if self.finish_reason == "stop" else self.choices
        return Completion(
            [choice.id for choice in kept],
            [int(choice.sampled) for choice in kept],
            self.finish_reason,
            [choice.logprob for choice in kept],
        )


def spread_seed(seed: int, index: int) -> int:
    """A 32-bit seed for sample `index` of a request; index 0 keeps a 32-bit `seed` as it is."""
    folded = (seed ^ (seed >> 32)) if seed >= 0 else seed
    return (folded + index * 0x9E3779B1) & 0xFFFFFFFF
