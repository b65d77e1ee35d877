"""Prompts on their way into rows: every device reads one at a time, chunk by chunk.

A prompt is read by the device that its row lies on, from the longest beginning that this device
holds already, in its scratch cache.
"""

import dataclasses
import itertools
from collections import deque
from collections.abc import Sequence

import numpy as np

from nanochat_jax.serve.engine.pool import Pool, PromptRest
from nanochat_jax.serve.engine.requests import Generation, SampledToken
from nanochat_jax.serve.engine.slots import NO_PREFIX, Prefix, Slot, best_prefix, busy, choose_slot

LOOK_AHEAD = 2  # prompts that are looked at for each device: the first may wait for a busy one


@dataclasses.dataclass(eq=False)
class Prefill:
    """A prompt on its way into a slot; `position` tokens of it are in the scratch cache."""

    generation: Generation
    slot: Slot
    position: int

    @property
    def tokens(self) -> tuple[int, ...]:
        """The whole prompt."""
        return self.generation.request.tokens

    @property
    def rest(self) -> PromptRest:
        """What is still to be read; the last token is the first that decoding feeds."""
        before = self.tokens[self.position - 1] if self.position else 0
        return PromptRest(self.position, before, self.tokens[self.position : -1])

    @property
    def targets(self) -> Sequence[int]:
        """What follows each token that is still to be read."""
        return self.tokens[self.position + 1 :]


class Prefiller:
    """Fills `slots` of `pool`. `reuse`: prompts go on from cached beginnings."""

    def __init__(self, pool: Pool, slots: Sequence[Slot], reuse: bool):
        self._pool, self._slots, self._reuse = pool, slots, reuse
        self._running: dict[int, Prefill] = {}  # by device
        self.forget()

    def forget(self) -> None:
        """Drops what the scratch caches hold."""
        self._scratch: dict[int, list[int]] = {d: [] for d in range(len(self._pool.devices))}

    def drop(self, slot: Slot) -> None:
        """Stops reading the prompt of that slot, if it is being read."""
        prefill = self._running.get(slot.device)
        if prefill is not None and prefill.slot is slot:
            del self._running[slot.device]

    def begin(self, waiting: deque[Generation], now: int) -> bool:
        """Gives slots to what waits, first come first served; whether any prompt is being read.

        A prompt whose beginning is cached on a device that still reads another one waits for it.
        """
        taken: list[int] = []
        # Over a copy, and not far: a free device need not idle behind one prompt that waits for a
        # busy device, but nobody is overtaken by many.
        for generation in list(itertools.islice(waiting, LOOK_AHEAD * len(self._scratch))):
            free = [slot for slot in self._slots if slot.generation is None]
            if all(slot.device in self._running for slot in free):
                break
            prefix = self._prefix(generation, {slot.device for slot in free})
            if prefix.device in self._running:
                continue
            idle = [slot for slot in free if slot.device not in self._running]
            slot = choose_slot(idle, prefix, self._pool.rows_for(busy(self._slots) + 1))
            waiting.remove(generation)
            if prefix.slot is not None:
                taken.append(prefix.slot.row)
                self._scratch[slot.device] = prefix.slot.held
            generation.cached_tokens = prefix.count
            slot.generation, slot.used_at = generation, now
            slot.tokens, slot.cached = [], 0
            self._running[slot.device] = Prefill(generation, slot, prefix.count)
        if taken:
            self._pool.take(taken)
        return bool(self._running)

    def _prefix(self, generation: Generation, devices: set[int]) -> Prefix:
        """The longest cached beginning of a prompt on one of the devices."""
        # Scores come from reading: a cached token has none left.
        if generation.request.score_prompt or not self._reuse:
            return NO_PREFIX
        slots = [slot for slot in self._slots if slot.device in devices]
        scratch = {device: self._scratch[device] for device in devices}
        return best_prefix(generation.request.tokens, slots, scratch)

    def read(self) -> tuple[int, list[Slot]]:
        """Reads a chunk of prompts; (tokens of the longest, slots whose prompt is read)."""
        running = self._alike()
        # An idle device reads nothing, from behind what its scratch cache holds: that stays whole.
        idle = {d: PromptRest(len(held), 0, ()) for d, held in self._scratch.items()}
        rests = [running[d].rest if d in running else rest for d, rest in idle.items()]
        if next(iter(running.values())).generation.request.score_prompt:
            targets = [running[d].targets if d in running else () for d in idle]
            counts, found = self._pool.score(rests, targets)
            for device, prefill in running.items():
                _add_scores(prefill, counts[device], [x[device] for x in found])
        else:
            counts = self._pool.prefill(rests)
        for device, prefill in running.items():
            prefill.position += counts[device]
            self._scratch[device] = list(prefill.tokens[: prefill.position])
        done = [prefill.slot for prefill in running.values() if not prefill.rest.tokens]
        for slot in done:
            del self._running[slot.device]
        return max(1, *counts), done

    def _alike(self) -> dict[int, Prefill]:
        """The oldest prompt, and those that the same compiled function reads; the others wait.

        Which function reads a chunk, of what size, shows in its last bits: that must not depend on
        what another device reads.
        """
        function = lambda prefill: (
            prefill.generation.request.score_prompt,
            self._pool.chunk_for(len(prefill.rest.tokens)),
        )
        first = function(next(iter(self._running.values())))
        return {d: one for d, one in self._running.items() if function(one) == first}


def _add_scores(prefill: Prefill, count: int, found: Sequence[np.ndarray]) -> None:
    """Adds the scores of the `count` prompt tokens that were just read."""
    own_T, ids_TN, top_TN = (x[:count] for x in found)
    rows = zip(prefill.targets[:count], own_T.tolist(), pairs(ids_TN, top_TN), strict=True)
    scores = prefill.generation.prompt_scores
    scores += [SampledToken(i, True, own, top) for i, own, top in rows]


def pairs(ids_TN: np.ndarray, logprobs_TN: np.ndarray) -> list[tuple[tuple[int, float], ...]]:
    """(id, logprob) of every alternative, in plain Python numbers, a tuple for each token."""
    both = zip(ids_TN.tolist(), logprobs_TN.tolist(), strict=True)
    return [tuple(zip(ids, logprobs, strict=True)) for ids, logprobs in both]
