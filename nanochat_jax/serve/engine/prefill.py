"""Prompts on their way into rows: every device reads one at a time, chunk by chunk.

A prompt is read by the device that its row lies on, from the longest beginning that this device
holds already, in its scratch cache.
"""

import itertools
import time
from collections import deque
from collections.abc import Sequence

from nanochat_jax.serve.engine.pool import Pool
from nanochat_jax.serve.engine.requests import Generation, scored_tokens
from nanochat_jax.serve.engine.slots import NO_PREFIX, Prefix, Slot, best_prefix, busy, choose_slot

LOOK_AHEAD = 2  # prompts that are looked at for each device: the first may wait for a busy one


class Prefiller:
    """Fills `slots` of `pool`. `reuse`: prompts go on from cached beginnings."""

    def __init__(self, pool: Pool, slots: Sequence[Slot], reuse: bool):
        self._pool, self._slots, self._reuse = pool, slots, reuse
        self._running: dict[int, Slot] = {}  # by device, the oldest first
        self.forget()

    def forget(self) -> None:
        """Drops what the scratch caches hold."""
        # The tokens, by device. Of a prompt that is being read: those that were read or cached.
        self._scratch: dict[int, Sequence[int]] = dict.fromkeys(range(len(self._pool.devices)), ())
        self._adapted = dict.fromkeys(self._scratch, True)  # whether adapters read them

    def drop(self, slot: Slot) -> None:
        """Stops reading the prompt of that slot, if it is being read."""
        if self._running.get(slot.device) is slot:
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
            generation.cached_tokens, generation.began_s = prefix.count, time.monotonic()
            slot.generation, slot.used_at = generation, now
            slot.tokens, slot.cached, slot.adapted = [], 0, generation.request.adapted
            self._adapted[slot.device] = slot.adapted
            self._scratch[slot.device] = generation.request.tokens[: prefix.count]
            self._running[slot.device] = slot
        if taken:
            self._pool.take(taken)
        return bool(self._running)

    def _prefix(self, generation: Generation, devices: set[int]) -> Prefix:
        """The longest cached beginning of a prompt on one of the devices."""
        # Scores come from reading: a cached token has none left.
        if generation.request.score_prompt or not self._reuse:
            return NO_PREFIX
        # What the model read with its adapters is of no use without them.
        wanted = generation.request.adapted
        slots = [s for s in self._slots if s.device in devices and s.adapted == wanted]
        scratch = {d: self._scratch[d] for d in devices if self._adapted[d] == wanted}
        return best_prefix(generation.request.tokens, slots, scratch)

    def read(self) -> tuple[int, list[Slot]]:
        """Reads a chunk of prompts; (tokens of the longest, slots whose prompt is read)."""
        reading, done = self._alike(), []
        # An idle device reads nothing, from behind what its scratch cache holds: that stays whole.
        tokens_of = {d: slot.generation.request.tokens for d, slot in reading.items()}
        prompts = [(tokens_of.get(d, held), len(held)) for d, held in self._scratch.items()]
        score = next(iter(reading.values())).generation.request.score_prompt
        counts, found = self._pool.prefill(prompts, score, self._adapted.values())
        for device, slot in reading.items():
            (tokens, begin), count = prompts[device], counts[device]
            if score:
                targets = tokens[begin + 1 : begin + count + 1]
                scores = scored_tokens(targets, [True] * count, *(x[device, :count] for x in found))
                slot.generation.prompt_scores += scores
            self._scratch[device] = tokens[: begin + count]
            if begin + count >= len(tokens) - 1:
                done.append(self._running.pop(device))
        return max(1, *counts), done

    def _alike(self) -> dict[int, Slot]:
        """The oldest prompt, and those that the same compiled function reads; the others wait.

        Which function reads a chunk, of what size, shows in its last bits: that must not depend on
        what another device reads.
        """

        def function(slot):
            request, read = slot.generation.request, len(self._scratch[slot.device])
            return request.score_prompt, self._pool.chunk_for(len(request.tokens) - 1 - read)

        first = function(next(iter(self._running.values())))
        return {d: slot for d, slot in self._running.items() if function(slot) == first}
