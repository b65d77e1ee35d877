"""Prompts on their way into rows: every device reads one at a time, chunk by chunk.

A prompt is read by the device that its row lies on, from the longest beginning that this device
holds already, in its scratch cache.
"""

import dataclasses
import itertools
from collections import deque
from collections.abc import Sequence

import numpy as np

from nanochat_jax.serve.engine.pool import Part, Pool
from nanochat_jax.serve.engine.requests import Choice, Job
from nanochat_jax.serve.engine.slots import NO_PREFIX, Prefix, Slot, best_prefix, busy, choose_slot

LOOK_AHEAD = 2  # jobs that are looked at for each device: the first may wait for a busy one


@dataclasses.dataclass(eq=False)
class Loading:
    """A prompt on its way into a slot; `position` tokens of it are in the scratch cache."""

    job: Job
    slot: Slot
    position: int

    @property
    def left(self) -> Sequence[int]:
        """What is still to be read; the last token is the first that decoding feeds."""
        return self.job.request.tokens[self.position : -1]

    @property
    def targets(self) -> Sequence[int]:
        """What follows each token that is still to be read."""
        return self.job.request.tokens[self.position + 1 :]

    @property
    def before(self) -> int:
        """The last token that was read."""
        return self.job.request.tokens[self.position - 1] if self.position else 0


class Loader:
    """Fills `slots` of `pool`. `reuse`: prompts go on from cached beginnings."""

    def __init__(self, pool: Pool, slots: Sequence[Slot], reuse: bool):
        self._pool, self._slots, self._reuse = pool, slots, reuse
        self._loading: dict[int, Loading] = {}  # by device
        self.forget()

    def forget(self) -> None:
        """Drops what the scratch caches hold."""
        self._scratch: dict[int, list[int]] = {d: [] for d in range(len(self._pool.devices))}

    def drop(self, slot: Slot) -> None:
        """Stops reading the prompt of that slot, if it is being read."""
        loading = self._loading.get(slot.device)
        if loading is not None and loading.slot is slot:
            del self._loading[slot.device]

    def begin(self, waiting: deque[Job], now: int) -> bool:
        """Gives slots to waiting jobs, first come first served; whether any prompt is being read.

        A job whose beginning is cached on a device that still reads another prompt waits for it.
        """
        taken: list[int] = []
        for job in list(itertools.islice(waiting, LOOK_AHEAD * len(self._scratch))):
            free = [slot for slot in self._slots if slot.job is None]
            if all(slot.device in self._loading for slot in free):
                break
            prefix = self._prefix(job, {slot.device for slot in free})
            if prefix.device in self._loading:
                continue
            idle = [slot for slot in free if slot.device not in self._loading]
            slot = choose_slot(idle, prefix, self._pool.rows_for(busy(self._slots) + 1))
            waiting.remove(job)
            if prefix.slot is not None:
                taken.append(prefix.slot.row)
                self._scratch[slot.device] = prefix.slot.held
            job.cached_tokens = prefix.count
            slot.job, slot.used_at = job, now
            slot.tokens, slot.cached = [], 0
            self._loading[slot.device] = Loading(job, slot, prefix.count)
        if taken:
            self._pool.take(taken)
        return bool(self._loading)

    def _prefix(self, job: Job, devices: set[int]) -> Prefix:
        """The longest cached beginning of the job's prompt on one of the devices."""
        if job.request.score_prompt or not self._reuse:
            return NO_PREFIX
        slots = [slot for slot in self._slots if slot.device in devices]
        scratch = {device: self._scratch[device] for device in devices}
        return best_prefix(job.request.tokens, slots, scratch)

    def load(self) -> tuple[int, list[Slot]]:
        """Reads a chunk of prompts; (tokens of the longest, slots whose prompt is read)."""
        loading = self._alike()
        # An idle device's scratch cache keeps what it holds: nothing is read, and behind it.
        parts = [
            Part(loading[d].position, loading[d].before, loading[d].left)
            if d in loading
            else Part(len(held), 0, ())
            for d, held in self._scratch.items()
        ]
        if next(iter(loading.values())).job.request.score_prompt:
            targets = [loading[d].targets if d in loading else () for d in self._scratch]
            counts, found = self._pool.score(parts, targets)
            for device, one in loading.items():
                _book_scores(one, counts[device], [x[device] for x in found])
        else:
            counts = self._pool.prefill(parts)
        for device, one in loading.items():
            one.position += counts[device]
            self._scratch[device] = list(one.job.request.tokens[: one.position])
        done = [one.slot for one in loading.values() if not one.left]
        for slot in done:
            del self._loading[slot.device]
        return max(1, *counts), done

    def _alike(self) -> dict[int, Loading]:
        """The oldest prompt, and those that the same compiled function reads; the others wait.

        Which function reads a chunk, of what size, shows in its last bits: that must not depend on
        what another device reads.
        """
        function = lambda one: (one.job.request.score_prompt, self._pool.chunk_for(len(one.left)))
        first = function(next(iter(self._loading.values())))
        return {d: one for d, one in self._loading.items() if function(one) == first}


def _book_scores(one: Loading, count: int, found: Sequence[np.ndarray]) -> None:
    """Gives the job the scores of the `count` tokens that were just read."""
    own_T, ids_TN, top_TN = (x[:count] for x in found)
    rows = zip(one.targets[:count], own_T.tolist(), pairs(ids_TN, top_TN), strict=True)
    one.job.prompt_scores += [Choice(i, True, own, top) for i, own, top in rows]


def pairs(ids_TN: np.ndarray, logprobs_TN: np.ndarray) -> list[tuple[tuple[int, float], ...]]:
    """(id, logprob) of every alternative, in plain Python numbers, a tuple for each token."""
    both = zip(ids_TN.tolist(), logprobs_TN.tolist(), strict=True)
    return [tuple(zip(ids, logprobs, strict=True)) for ids, logprobs in both]
