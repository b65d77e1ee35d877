"""Conversations as micro-batches: one token stream (mid), or rows with masked targets (SFT).

Each pull is a `MicroBatch` of the original's rank `pull % ranks`; `last` is true from the pull on
which that rank's pass over the task ended.
"""

import collections
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, Protocol

import grain
import numpy as np
from grain.experimental import ThreadPrefetchIterDataset

from nanochat_jax.data import packing
from nanochat_jax.data.batch import MicroBatch
from nanochat_jax.data.loader import PREFETCH, RankDataset
from nanochat_jax.tokenizer import Tokenizer

log = logging.getLogger(__name__)

MAX_TOKENS = 2048  # of one conversation, as the original
BUCKET = 128  # padded rows are a multiple of this long, so that few shapes are compiled


class Items(Protocol):
    """Conversations (or raw texts) by index."""

    def __len__(self) -> int: ...
    def __getitem__(self, index: int) -> Mapping[str, Any]: ...


def mid_loader(
    items: Items, tokenizer: Tokenizer, batch: int, seq_len: int, *, ranks: int = 1,
    prefetch: int = PREFETCH,
) -> grain.IterDataset:  # fmt: skip
    """Rows cut from the stream of all conversations; every token is a target.

    Source: nanochat October 2025 `scripts/mid_train.py`.
    """
    return _dataset(
        lambda r: MidStream(items, tokenizer, batch, seq_len, r, ranks), ranks, prefetch
    )


def sft_loader(
    items: Items, tokenizer: Tokenizer, batch: int, seq_len: int, *,
    kind: Literal["padded", "bestfit"] = "padded", ranks: int = 1, buffer_size: int = 100,
    bucket: int = BUCKET, cut_long: bool = False, prefetch: int = PREFETCH,
) -> grain.IterDataset:  # fmt: skip
    """Rows whose targets are the assistant's own tokens; all others are -1.

    Args:
        kind: `padded`: a conversation a row, padded to the longest of the batch, rounded up to
            `bucket`; `bestfit`: several whole conversations a row of `seq_len` tokens.
        cut_long: `bestfit` cuts a conversation that is longer than a row, as `padded` always does,
            instead of leaving it out.

    Source: nanochat `scripts/chat_sft.py`, October 2025 (padded) and July 2026 (bestfit).
    """
    if kind == "padded":
        make = lambda r: Padded(items, tokenizer, batch, seq_len, r, ranks, bucket)
    else:
        make = lambda r: Packed(items, tokenizer, batch, seq_len, r, ranks, buffer_size, cut_long)
    return _dataset(make, ranks, prefetch)


def _dataset(make: Callable[[int], Any], ranks: int, prefetch: int) -> grain.IterDataset:
    dataset = RankDataset(lambda: [make(r) for r in range(ranks)])
    return (
        ThreadPrefetchIterDataset(dataset, prefetch_buffer_size=prefetch) if prefetch else dataset
    )


class _Cursor:
    """A rank's walk over the items: index `rank`, then every `ranks`-th, pass after pass.

    Args:
        restart: a pass begins at `rank` again, as the original's padded rows do; its other chat
            loaders count on from where the pass before ended.

    Raises:
        ValueError: there are no items.
    """

    def __init__(
        self, items: Items, tokenizer: Tokenizer, rank: int, ranks: int, limit: int,
        restart: bool = False,
    ):  # fmt: skip
        if len(items) == 0:
            raise ValueError("the mixture has no conversation; name tasks that have rows")
        self.items, self.tokenizer, self.ranks, self.limit = items, tokenizer, ranks, limit
        self.size, self.at, self.epoch = len(items), rank % len(items), 1
        self.first = self.at if restart else None

    def take(self) -> tuple[int, list[int], list[int]]:
        """(index, ids, mask) of the next item; moves on."""
        index = self.at
        ids, mask = self.read(index)
        self.at += self.ranks
        if self.at >= self.size:
            wrapped = self.at % self.size if self.first is None else self.first
            self.at, self.epoch = wrapped, self.epoch + 1
        return index, ids, mask

    def read(self, index: int) -> tuple[list[int], list[int]]:
        return self.tokenizer.render(self.items[index], self.limit)

    def state(self) -> list[int]:
        return [self.at, self.epoch]

    def restore(self, state: Sequence[int]) -> None:
        self.at, self.epoch = int(state[0]), int(state[1])


class MidStream:
    """B x T + 1 tokens a pull off one stream of conversations; the last is only a target."""

    def __init__(self, items, tokenizer, batch, seq_len, rank, ranks):
        self.cursor = _Cursor(items, tokenizer, rank, ranks, MAX_TOKENS)
        self.shape, self.last = (batch, seq_len), False
        self._waiting: collections.deque[tuple[int, list[int]]] = collections.deque()
        self._skip = 0

    def pull(self) -> MicroBatch:
        B, T = self.shape
        wanted, parts = B * T + 1, []
        while wanted:
            if not self._waiting:
                self._read()
            _, ids = self._waiting[0]
            piece = ids[self._skip : self._skip + wanted]
            parts.extend(piece)
            wanted, self._skip = wanted - len(piece), self._skip + len(piece)
            if self._skip == len(ids):
                self._waiting.popleft()
                self._skip = 0
        flat = np.asarray(parts, np.int32)
        inputs, targets, cursor = flat[:-1].reshape(B, T), flat[1:].reshape(B, T), self.cursor
        return MicroBatch(inputs, targets, cursor.epoch, cursor.at / cursor.size, self.last)

    def get_state(self) -> dict[str, Any]:
        waiting = [index for index, _ in self._waiting]
        state = {"cursor": self.cursor.state(), "waiting": waiting, "skip": self._skip}
        return state | {"last": self.last}

    def set_state(self, state: Mapping[str, Any]) -> None:
        self.cursor.restore(state["cursor"])
        ids = lambda i: self.cursor.read(i)[0]
        self._waiting = collections.deque((i, ids(i)) for i in state["waiting"])
        self._skip, self.last = int(state["skip"]), bool(state["last"])

    def _read(self) -> None:
        epoch = self.cursor.epoch
        index, ids, _ = self.cursor.take()
        self.last = self.last or self.cursor.epoch > epoch
        if ids:
            self._waiting.append((index, ids))


class Padded:
    """A conversation a row; rows of a batch are padded on the right, targets there are -1."""

    def __init__(self, items, tokenizer, batch, seq_len, rank, ranks, bucket):
        limit = min(MAX_TOKENS, seq_len + 1)
        self.cursor = _Cursor(items, tokenizer, rank, ranks, limit, restart=True)
        self.batch, self.bucket, self.seq_len = batch, bucket, seq_len
        self.pad, self.taken = tokenizer.encode_special("<|assistant_end|>"), 0
        self.last = False

    def pull(self) -> MicroBatch:
        epoch = self.cursor.epoch
        rows = [self.cursor.take()[1:] for _ in range(self.batch)]
        self.last = self.last or self.cursor.epoch > epoch
        self.taken += self.batch
        longest = max(len(ids) for ids, _ in rows) - 1
        width = min(-(-longest // self.bucket) * self.bucket, max(longest, self.seq_len))
        fill = lambda x, value: x + [value] * (width + 1 - len(x))
        ids = np.asarray([fill(list(ids), self.pad) for ids, _ in rows])
        mask = np.asarray([fill(list(mask), 0) for _, mask in rows])
        inputs, targets = packing.supervised(ids, mask)
        progress = min(1.0, self.taken * self.cursor.ranks / self.cursor.size)
        return MicroBatch(inputs, targets, self.cursor.epoch, progress, self.last)

    def get_state(self) -> dict[str, Any]:
        return {"cursor": self.cursor.state(), "taken": self.taken, "last": self.last}

    def set_state(self, state: Mapping[str, Any]) -> None:
        self.cursor.restore(state["cursor"])
        self.taken, self.last = int(state["taken"]), bool(state["last"])


class Packed:
    """Whole conversations packed best-fit into rows; what is left of a row is bos, never learnt.

    A conversation longer than a row waits in the buffer as in the original; where it would fill
    the buffer and stop the run (a flaw of the original) it is dropped, and counted.
    """

    def __init__(self, items, tokenizer, batch, seq_len, rank, ranks, buffer_size, cut_long=False):
        limit = min(MAX_TOKENS, seq_len + 1) if cut_long else MAX_TOKENS
        self.cursor = _Cursor(items, tokenizer, rank, ranks, limit)
        self.batch, self.capacity, self.buffer_size = batch, seq_len + 1, buffer_size
        self.bos, self.placed, self.rank, self.dropped = (
            tokenizer.get_bos_token_id(), 0, rank, 0,
        )  # fmt: skip
        self._buffer: list[tuple[int, list[int], list[int]]] = []
        self._told = 0

    def pull(self) -> MicroBatch:
        rows = [self._row() for _ in range(self.batch)]
        inputs, targets = packing.supervised(
            np.asarray([ids for ids, _ in rows]), np.asarray([mask for _, mask in rows])
        )
        consumed = self.rank + self.placed * self.cursor.ranks
        size, epoch = self.cursor.size, self.cursor.epoch
        return MicroBatch(inputs, targets, epoch, consumed / size, consumed >= size)

    def get_state(self) -> dict[str, Any]:
        buffer = [index for index, _, _ in self._buffer]
        state = {"cursor": self.cursor.state(), "buffer": buffer}
        return state | {"placed": self.placed, "dropped": self.dropped}

    def set_state(self, state: Mapping[str, Any]) -> None:
        self.cursor.restore(state["cursor"])
        self._buffer = [(i, *self.cursor.read(i)) for i in state["buffer"]]
        self.placed, self.dropped = int(state["placed"]), int(state["dropped"])

    def _row(self) -> tuple[list[int], list[int]]:
        ids: list[int] = []
        mask: list[int] = []
        while room := self.capacity - len(ids):
            self._fill()
            i, fits = packing.choose([len(entry[1]) for entry in self._buffer], room)
            if not fits:
                return ids + [self.bos] * room, mask + [0] * room
            _, more, learnt = self._buffer.pop(i)
            ids, mask, self.placed = ids + list(more), mask + list(learnt), self.placed + 1
        return ids, mask

    def _fill(self) -> None:
        """Fills the buffer; drops what can never be placed once that is all it holds.

        Raises:
            ValueError: as many were taken as there are items, and none fits.
        """
        taken = 0
        while True:
            while len(self._buffer) < self.buffer_size:
                self._buffer.append(self.cursor.take())
                taken += 1
            if any(len(ids) <= self.capacity for _, ids, _ in self._buffer):
                return
            if taken >= self.cursor.size:
                raise ValueError(
                    f"no conversation of the mixture fits into a row of {self.capacity} tokens; "
                    "raise --max-seq-len, or use --packing padded, which cuts them"
                )
            self._drop()

    def _drop(self) -> None:
        """Empties the buffer; the number is told at first, and whenever it has doubled."""
        self.dropped += len(self._buffer)
        self.placed += len(self._buffer)
        if self.dropped >= 2 * self._told:
            log.warning(
                "%d conversations longer than a row of %d tokens are left out so far",
                self.dropped, self.capacity - 1,
            )  # fmt: skip
            self._told = self.dropped
        self._buffer.clear()
