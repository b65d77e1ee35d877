"""Several ranks' streams, read in turn by one process: a grain dataset with an exact position.

The original gives each GPU a rank that reads its own part of the data, so its order of data is one
of the number of GPUs. Here `ranks` is a number of the run: pull n is a micro-batch of rank
n % ranks, whatever devices there are, so a run can continue on another machine.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import grain
from grain.experimental import ThreadPrefetchIterDataset

from nanochat_jax.data.batch import MicroBatch

# Micro-batches made ahead in a thread: reading, tokenising and packing happen while the device
# computes. The original prepares one, on the training thread. The tokenizer is Rust and lets go of
# Python's lock, so a thread is enough; several would need an order among them.
PREFETCH = 8


class RankStream(Protocol):
    """One rank's endless micro-batches; its state is JSON."""

    def pull(self) -> MicroBatch: ...
    def get_state(self) -> dict[str, Any]: ...
    def set_state(self, state: Mapping[str, Any]) -> None: ...


def in_turn(
    make: Callable[[int], RankStream], ranks: int, prefetch: int = PREFETCH,
    elsewhere: Mapping[int, MicroBatch] | None = None,
) -> grain.IterDataset:  # fmt: skip
    """Micro-batches of `make(0)`, `make(1)`, ... in turn, `prefetch` of them made ahead.

    `elsewhere`: ranks that another process reads, and what stands here for their micro-batches.
    """
    dataset = _InTurn(make, ranks, elsewhere or {})
    if not prefetch:
        return dataset
    return ThreadPrefetchIterDataset(dataset, prefetch_buffer_size=prefetch)


class _InTurn(grain.IterDataset):
    def __init__(
        self, make: Callable[[int], RankStream], ranks: int, elsewhere: Mapping[int, MicroBatch]
    ):
        super().__init__()
        self._make, self._ranks, self._elsewhere = make, ranks, elsewhere

    def __iter__(self) -> "_Iterator":
        there = self._elsewhere
        make = lambda rank: _Elsewhere(there[rank]) if rank in there else self._make(rank)
        return _Iterator([make(rank) for rank in range(self._ranks)])


class _Elsewhere:
    """A rank that another process reads."""

    def __init__(self, batch: MicroBatch):
        self._batch = batch

    def pull(self) -> MicroBatch:
        return self._batch

    def get_state(self) -> None:
        return None

    def set_state(self, state: Any) -> None:
        """Nothing: its reader goes to it."""


def owned(
    ranks: int, pulls: int, rows: int, share: int, owners: Sequence[int], process: int
) -> set[int]:
    """The ranks of whose rows some go to a process.

    A step is `pulls` micro-batches of `rows` rows, dealt out to the devices in turn, `share` rows
    at a time; `owners` is each device's process. These are all ranks unless they are a multiple of
    the devices, or of what the devices of one process divide.
    """
    here = lambda row: owners[row // share % len(owners)] == process
    mine = [n for n in range(pulls) if any(map(here, range(n * rows, (n + 1) * rows)))]
    return {(step * pulls + n) % ranks for step in range(ranks) for n in mine}


def merged(states: Sequence[Mapping[str, Any] | None]) -> Mapping[str, Any] | None:
    """The state of all ranks, from those of several processes with their own ranks."""
    first = states[0]
    if first is None or "streams" not in first:
        return first
    known = lambda streams: next(s for s in streams if s is not None)
    return {**first, "streams": [*map(known, zip(*(s["streams"] for s in states), strict=True))]}


class _Iterator(grain.DatasetIterator):
    """Its state is the streams' and the count of pulls, which says whose turn it is."""

    def __init__(self, streams: Sequence[RankStream]):
        super().__init__()
        self._streams, self._pulls = streams, 0

    def __next__(self) -> MicroBatch:
        stream = self._streams[self._pulls % len(self._streams)]
        self._pulls += 1
        return stream.pull()

    def get_state(self) -> dict[str, Any]:
        return {"pulls": self._pulls, "streams": [s.get_state() for s in self._streams]}

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Goes to a state of ours, or to the original's, which is one position for all ranks."""
        self._pulls = int(state.get("pulls", 0))
        saved = state.get("streams") or [state] * len(self._streams)
        for stream, one in zip(self._streams, saved, strict=True):
            stream.set_state(one)
