"""Pretraining micro-batches as a grain dataset whose position can be saved and restored exactly.

One pull is one `MicroBatch` of the original's rank `pull % ranks`: how many devices there are
changes nothing about the order.
"""

import collections
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import grain
import numpy as np
from grain.experimental import ThreadPrefetchIterDataset

from nanochat_jax.data import packing
from nanochat_jax.data.batch import MicroBatch
from nanochat_jax.data.documents import Documents, Position
from nanochat_jax.tokenizer import Tokenizer

Kind = Literal["stream", "bestfit"]
PREFETCH = 8  # micro-batches made ahead, in a thread


def pretraining_loader(
    files: Sequence[pathlib.Path],
    tokenizer: Tokenizer,
    batch: int,
    seq_len: int,
    *,
    kind: Kind = "stream",
    ranks: int = 1,
    tokenizer_batch: int = 128,
    buffer_size: int = 1000,
    resume: Mapping[str, int] | Sequence[Mapping[str, int]] | None = None,
    prefetch: int = PREFETCH,
) -> grain.IterDataset:
    """Endless micro-batches of `batch` rows of `seq_len` tokens.

    Args:
        kind: `stream` cuts rows from one token stream; `bestfit` starts each row at a document.
        ranks: how many ranks of the original to read as, one after the other.
        resume: where the original's checkpoint stood, `{"pq_idx", "rg_idx", "epoch"}`: the
            loader goes on after that row group, as the original does (its buffer is lost).
        prefetch: micro-batches made ahead; 0: none.
    """
    make = Stream if kind == "stream" else BestFit
    starts = resume if isinstance(resume, Sequence) else [resume] * ranks

    def rank_stream(rank: int) -> Any:
        docs = Documents(files, tokenizer, rank, ranks, tokenizer_batch)
        made = make(docs, batch, seq_len, buffer_size)
        if starts[rank] is not None:
            at = starts[rank]
            made.begin(docs.after(at["pq_idx"], at["rg_idx"], at.get("epoch", 1)))
        return made

    dataset = RankDataset(lambda: [rank_stream(r) for r in range(ranks)])
    return (
        ThreadPrefetchIterDataset(dataset, prefetch_buffer_size=prefetch) if prefetch else dataset
    )


class RankDataset(grain.IterDataset):
    """Pulls from several streams in turn."""

    def __init__(self, make: Any):
        super().__init__()
        self._make = make

    def __iter__(self) -> "RankIterator":
        return RankIterator(self._make())


class RankIterator(grain.DatasetIterator):
    """Pull `n` comes from stream `n % len(streams)`; the state is theirs and the count."""

    def __init__(self, streams: Sequence[Any]):
        super().__init__()
        self._streams, self._pulls = list(streams), 0

    def __next__(self) -> MicroBatch:
        stream = self._streams[self._pulls % len(self._streams)]
        self._pulls += 1
        return stream.pull()

    def get_state(self) -> dict[str, Any]:
        return {"pulls": self._pulls, "streams": [s.get_state() for s in self._streams]}

    def set_state(self, state: dict[str, Any]) -> None:
        """Goes to a state of ours, or to what the original saved: `{"pq_idx", "rg_idx", "epoch"}`.

        The original goes on after that row group and loses what it had buffered; so do we then.
        """
        if "pq_idx" in state:
            for stream in self._streams:
                stream.begin(stream.docs.after(state["pq_idx"], state["rg_idx"], state["epoch"]))
            return
        self._pulls = int(state["pulls"])
        for stream, saved in zip(self._streams, state["streams"], strict=True):
            stream.set_state(saved)


class Stream:
    """The classic loader: B x T + 1 tokens a pull off one stream; the last is only a target.

    Source: nanochat October 2025 `nanochat/dataloader.py`.
    """

    def __init__(self, docs: Documents, batch: int, seq_len: int, _: int = 0):
        self.docs, self.shape = docs, (batch, seq_len)
        self.begin(docs.first())

    def begin(self, at: Position, skip: int = 0) -> None:
        """Goes to token `skip` of the document at `at`."""
        self._source = self.docs.batches(at)
        self._waiting: collections.deque[tuple[Position, list[int]]] = collections.deque()
        self._skip = skip

    def pull(self) -> MicroBatch:
        B, T = self.shape
        wanted, parts = B * T + 1, []
        while wanted:
            at, ids = self._head()
            piece = ids[self._skip : self._skip + wanted]
            parts.extend(piece)
            wanted -= len(piece)
            self._skip += len(piece)
            if self._skip == len(ids):
                self._waiting.popleft()
                self._skip = 0
        flat = np.asarray(parts, np.int32)
        inputs, targets = flat[:-1].reshape(B, T), flat[1:].reshape(B, T)
        return MicroBatch(inputs, targets, at.epoch)

    def get_state(self) -> dict[str, Any]:
        at, _ = self._head()
        return {"at": list(at), "skip": self._skip}

    def set_state(self, state: dict[str, Any]) -> None:
        self.begin(Position(*state["at"]), int(state["skip"]))

    def _head(self) -> tuple[Position, list[int]]:
        if not self._waiting:
            self._waiting.extend(zip(*next(self._source), strict=True))
        return self._waiting[0]


class BestFit:
    """The 2026 loader: each row begins with a document and is filled without gaps.

    Source: nanochat July 2026 `nanochat/dataloader.py`.
    """

    def __init__(self, docs: Documents, batch: int, seq_len: int, buffer_size: int):
        self.docs, self.shape, self.buffer_size = docs, (batch, seq_len), buffer_size
        self.begin(docs.first())

    def begin(self, at: Position) -> None:
        """Empties the buffer and reads on from `at`."""
        self._source = self.docs.batches(at)
        self._next = self._last = at
        self._places: list[Position] = []
        self._ids: list[list[int]] = []
        self._lengths: list[int] = []

    def pull(self) -> MicroBatch:
        B, T = self.shape
        inputs, targets = packing.shift(np.asarray([self._row(T + 1) for _ in range(B)]))
        at = self.position()
        return MicroBatch(inputs, targets, at["epoch"], position=at)

    def position(self) -> dict[str, int]:
        """What the original saves: the row group read last."""
        return {"pq_idx": self._last.file, "rg_idx": self._last.group, "epoch": self._last.epoch}

    def get_state(self) -> dict[str, Any]:
        """The documents in the buffer, by position, the last one read, and the next."""
        buffer = [list(place) for place in self._places]
        return {"next": list(self._next), "last": list(self._last), "buffer": buffer}

    def set_state(self, state: dict[str, Any]) -> None:
        self.begin(Position(*state["next"]))
        self._last = Position(*state["last"])
        places = [Position(*place) for place in state["buffer"]]
        in_order = sorted(range(len(places)), key=lambda i: places[i])
        ids = dict(zip(in_order, self.docs.read([places[i] for i in in_order]), strict=True))
        self._add(places, [ids[i] for i in range(len(places))])

    def _row(self, capacity: int) -> list[int]:
        row: list[int] = []
        while len(row) < capacity:
            while len(self._ids) < self.buffer_size:
                places, ids = next(self._source)
                self._add(places, ids)
                self._last = places[-1]
                self._next = self._last._replace(doc=self._last.doc + 1)
            i, _ = packing.choose(self._lengths, capacity - len(row))
            del self._places[i], self._lengths[i]
            row += self._ids.pop(i)[: capacity - len(row)]
        return row

    def _add(self, places: list[Position], ids: list[list[int]]) -> None:
        self._places += places
        self._ids += ids
        self._lengths += [len(x) for x in ids]
