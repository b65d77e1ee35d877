"""Which row a request gets, and how much of its prompt is cached already."""

import dataclasses
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import NamedTuple

from nanochat_jax.serve.engine.requests import Generation
from nanochat_jax.serve.engine.tool_calls import ToolCalls

WORTH_REUSING = 8  # tokens: below this a copy costs more than it saves


@dataclasses.dataclass(eq=False)
class Slot:
    """One row. `tokens` are known to the host; the cache holds the first `cached` of them.

    `cached` is one less than `tokens` while a row replies: its last token was chosen, not yet fed.
    `adapted`: whether the model read them with its adapters.
    """

    row: int
    device: int = 0
    generation: Generation | None = None
    tool_calls: ToolCalls | None = None
    tokens: list[int] = dataclasses.field(default_factory=list)
    cached: int = 0
    adapted: bool = True
    used_at: int = 0  # the engine's tick when it was last given away


def busy(slots: Iterable[Slot]) -> int:
    """How many of them are replying or having their prompt read."""
    return sum(slot.generation is not None for slot in slots)


class Prefix(NamedTuple):
    """A cached beginning of a prompt: on which device, in which slot (None: its scratch cache)."""

    count: int
    device: int | None
    slot: Slot | None


NO_PREFIX = Prefix(0, None, None)


def common_prefix(a: Sequence[int], b: Sequence[int]) -> int:
    """How many tokens `a` and `b` share from the beginning."""
    differ = (i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y)
    return next(differ, min(len(a), len(b)))


def best_prefix(
    prompt: Sequence[int], slots: Collection[Slot], scratch: Mapping[int, Sequence[int]]
) -> Prefix:
    """The longest beginning of the prompt that one of the slots or scratch caches holds.

    `scratch`: device -> the tokens of its scratch cache.
    """
    prompt = prompt[:-1]  # the last token is the first that decoding feeds
    held = [Prefix(common_prefix(prompt, tokens), d, None) for d, tokens in scratch.items()]
    shared = lambda slot: min(common_prefix(prompt, slot.tokens), slot.cached)
    held += [Prefix(shared(slot), slot.device, slot) for slot in slots]
    best = max(held, key=lambda prefix: prefix.count, default=NO_PREFIX)
    return best if best.count >= WORTH_REUSING else NO_PREFIX


def choose_slot(free: Sequence[Slot], prefix: Prefix, near: int) -> Slot:
    """The slot for a prompt whose cached beginning is `prefix`, on the same device.

    The chat that goes on stays in its row. One that only begins like another (the same system
    text) leaves that row alone and takes an empty one, or the one that was left longest ago. Rows
    below `near` first: the decode loop runs over as few rows as hold all replies.
    """
    reachable = [slot for slot in free if prefix.device in (None, slot.device)]
    low = [slot for slot in reachable if slot.row < near] or reachable
    # More than half of what the row holds: taken as the same chat, with a new turn or a retry.
    if prefix.slot in low and 2 * prefix.count > prefix.slot.cached:
        return prefix.slot
    return min(low, key=lambda slot: (slot.cached > 0, slot.used_at))
