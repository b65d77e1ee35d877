"""Which row a request gets, and how much of its prompt is cached already."""

import dataclasses
from collections import deque
from collections.abc import Collection, Sequence

from nanochat_jax.serve.requests import Job

WORTH_REUSING = 8  # tokens: below this a copy costs more than it saves


@dataclasses.dataclass(eq=False)
class Slot:
    """One row. `tokens` are known to the host; the cache holds the first `cached` of them."""

    row: int
    job: Job | None = None
    tokens: list[int] = dataclasses.field(default_factory=list)
    cached: int = 0
    expression: list[int] | None = None
    forced: deque[int] = dataclasses.field(default_factory=deque)
    used_at: int = 0

    @property
    def held(self) -> list[int]:
        """The tokens whose keys the row's cache holds."""
        return self.tokens[: self.cached]


@dataclasses.dataclass(eq=False)
class Loading:
    """A prompt on its way into a slot; `position` tokens of it are in the scratch cache."""

    job: Job
    slot: Slot
    position: int


def common_prefix(a: Sequence[int], b: Sequence[int]) -> int:
    """How many tokens `a` and `b` share from the beginning."""
    for i, (x, y) in enumerate(zip(a, b, strict=False)):
        if x != y:
            return i
    return min(len(a), len(b))


def best_prefix(
    prompt: Sequence[int], slots: Collection[Slot], scratch: Sequence[int]
) -> tuple[int, Slot | None]:
    """How much of the prompt is cached already, and in which slot (None: the scratch cache)."""
    prompt = prompt[:-1]  # the last token is the first that decoding feeds
    best, source = common_prefix(prompt, scratch), None
    for slot in slots:
        count = common_prefix(prompt, slot.held)
        if count > best:
            best, source = count, slot
    return (best, source) if best >= WORTH_REUSING else (0, None)


def choose_slot(free: Sequence[Slot], source: Slot | None, shared: int, near: int) -> Slot:
    """The slot for a prompt of which `source` holds `shared` tokens.

    The chat that goes on stays in its row. One that only begins like another (the same system
    text) leaves that row alone and takes an empty one, or the one that was left longest ago. Rows
    below `near` first: the decode loop runs over as few rows as hold all replies.
    """
    low = [slot for slot in free if slot.row < near] or free
    if source in low and 2 * shared > source.cached:
        return source
    return min(low, key=lambda slot: (slot.cached > 0, slot.used_at))
