"""Conversations as micro-batches: one token stream (mid), or rows with masked targets (SFT).

Each pull is a `MicroBatch` of the original's rank `pull % ranks`; `last` is true from the pull on
which that rank's pass over the task ended.
"""

import itertools
import logging
from collections.abc import Mapping, Sequence
from typing import Any, Literal, Protocol

import grain
import numpy as np

from nanochat_jax.data import packing
from nanochat_jax.data.batch import MicroBatch, Piece
from nanochat_jax.data.ranks import PREFETCH, in_turn
from nanochat_jax.tokenizer import Tokenizer

log = logging.getLogger(__name__)

MAX_TOKENS = 2048  # of one conversation, as the original


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
    cursor = lambda rank: _Cursor(items, tokenizer, rank, ranks)
    return in_turn(lambda rank: MidStream(cursor(rank), batch, seq_len), ranks, prefetch)


def sft_loader(
    items: Items, tokenizer: Tokenizer, batch: int, seq_len: int, *,
    kind: Literal["padded", "bestfit"] = "padded", ranks: int = 1, buffer_size: int = 100,
    bucket: int | None = None, epochs: int = 1, prefetch: int = PREFETCH,
) -> grain.IterDataset:  # fmt: skip
    """Rows whose targets are the assistant's own tokens; all others are -1.

    Args:
        kind: `padded`: a conversation a row, padded to the longest of the batch, rounded up to
            one of four widths; `bestfit`: several whole conversations a row of `seq_len` tokens.
        bucket: padded rows are a multiple of this long instead.
        epochs: passes until `last` in bestfit rows, whose number nobody knows before.

    Source: nanochat `scripts/chat_sft.py`, October 2025 (padded) and July 2026 (bestfit).
    """

    def rank_stream(rank: int) -> Padded | Packed:
        if kind == "padded":
            limit = min(MAX_TOKENS, seq_len + 1)
            cursor = _Cursor(items, tokenizer, rank, ranks, limit, restart=True)
            return Padded(cursor, batch, seq_len, bucket)
        return Packed(_Cursor(items, tokenizer, rank, ranks), batch, seq_len, buffer_size, epochs)

    return in_turn(rank_stream, ranks, prefetch)


class _Cursor:
    """A rank's walk over the items: index `rank`, then every `ranks`-th, pass after pass.

    With `restart` a pass begins at `rank` again, as the original's padded rows do; its other chat
    loaders count on from where the pass before ended.
    """

    def __init__(
        self, items: Items, tokenizer: Tokenizer, rank: int, ranks: int,
        limit: int = MAX_TOKENS, restart: bool = False,
    ):  # fmt: skip
        if len(items) == 0:
            raise ValueError("the mixture has no conversation; name tasks that have rows")
        # Conversations are rendered when they are taken, and positions are indices: a resumed run
        # renders its buffer again, and a state on disk stays small.
        self.items, self.tokenizer, self.limit = items, tokenizer, limit
        self.rank, self.ranks = rank, ranks
        self.size, self.at, self.epoch = len(items), rank % len(items), 1
        self.first = self.at if restart else None

    @property
    def passed(self) -> bool:
        """Whether every item of this rank was taken once."""
        return self.epoch > 1

    def take(self) -> tuple[int, list[int], list[int]]:
        """(index, ids, mask) of the next item; moves on."""
        index = self.at
        ids, mask = self.read(index)
        self.at, self.epoch = following(self.at, self.epoch, self.size, self.ranks, self.first)
        return index, ids, mask

    def read(self, index: int) -> tuple[list[int], list[int]]:
        return self.tokenizer.render(self.items[index], self.limit)

    def state(self) -> list[int]:
        return [self.at, self.epoch]

    def restore(self, state: Sequence[int]) -> None:
        self.at, self.epoch = map(int, state)


def following(at: int, epoch: int, size: int, ranks: int, first: int | None) -> tuple[int, int]:
    """A cursor's next (item, epoch); `first`: the item that each pass begins at; None: a pass
    counts on from where the one before ended."""
    at += ranks
    if at < size:
        return at, epoch
    return at % size if first is None else first, epoch + 1


class MidStream:
    """Rows cut off one stream of conversations; every token is a target, the user's too.

    Midtraining is pretraining on other text: it teaches what conversations look like, both sides
    of them; whose part is the model's own is left to SFT.
    """

    def __init__(self, cursor: _Cursor, batch: int, seq_len: int):
        self.cursor, self.shape = cursor, (batch, seq_len)
        self._begin()

    def pull(self) -> MicroBatch:
        inputs, targets, pieces = self._tokens.cut(*self.shape)
        cursor = self.cursor
        progress = cursor.at / cursor.size
        return MicroBatch(inputs, targets, cursor.epoch, progress, cursor.passed, pieces=pieces)

    def get_state(self) -> dict[str, Any]:
        waiting = [] if self._tokens.begun is None else [self._tokens.begun]
        return {"cursor": self.cursor.state(), "waiting": waiting, "skip": self._tokens.skip}

    def set_state(self, state: Mapping[str, Any]) -> None:
        self.cursor.restore(state["cursor"])
        self._begin(state["waiting"], int(state["skip"]))

    def _begin(self, waiting: Sequence[int] = (), skip: int = 0) -> None:
        begun = [(index, self.cursor.read(index)[0]) for index in waiting]
        taken = ((index, ids) for index, ids, _ in iter(self.cursor.take, None))  # without end
        self._tokens = packing.TokenStream(itertools.chain(begun, taken), skip)


class Padded:
    """A conversation a row; rows of a batch are padded on the right, targets there are -1.

    Attention is causal, so no token sees the padding behind it, and no mask is needed.
    """

    def __init__(self, cursor: _Cursor, batch: int, seq_len: int, bucket: int | None):
        self.cursor, self.batch, self.seq_len, self.bucket = cursor, batch, seq_len, bucket
        self.pad, self.taken = cursor.tokenizer.encode_special("<|assistant_end|>"), 0

    def pull(self) -> MicroBatch:
        rows = [self.cursor.take() for _ in range(self.batch)]
        self.taken += self.batch
        longest = max(len(ids) for _, ids, _ in rows) - 1
        width = packing.padded_width(longest, self.seq_len, self.bucket)
        fill = lambda x, value: [*x, *[value] * (width + 1 - len(x))]
        filled = np.asarray([(fill(ids, self.pad), fill(mask, 0)) for _, ids, mask in rows])
        inputs, targets = packing.supervised(*filled.swapaxes(0, 1))
        # From the count of all ranks, so that the schedule is the same whichever rank is pulled.
        progress = min(1.0, self.taken * self.cursor.ranks / self.cursor.size)
        pieces = [[Piece(index, 0, len(ids))] for index, ids, _ in rows]
        return MicroBatch(
            inputs, targets, self.cursor.epoch, progress, self.cursor.passed, pieces=pieces
        )

    def get_state(self) -> dict[str, Any]:
        return {"cursor": self.cursor.state(), "taken": self.taken}

    def set_state(self, state: Mapping[str, Any]) -> None:
        self.cursor.restore(state["cursor"])
        self.taken = int(state["taken"])


class Packed:
    """Whole conversations packed best-fit into rows; the rest of a row is bos, without targets.

    Nothing is cut, unlike in pretraining: the answer, which is what is to be learned, stands at a
    conversation's end. A conversation longer than a row waits in the buffer as in the original;
    there such ones could fill the buffer, after which every row was padding, the loss 0/0, and the
    run without end. Here they are dropped then, and counted.
    """

    def __init__(
        self, cursor: _Cursor, batch: int, seq_len: int, buffer_size: int, epochs: int = 1
    ):  # fmt: skip
        self.cursor, self.batch, self.buffer_size = cursor, batch, buffer_size
        self.to_place = epochs * cursor.size
        self.capacity, self.bos = seq_len + 1, cursor.tokenizer.get_bos_token_id()
        self.placed = self.dropped = self._warned = 0
        self._buffer: list[tuple[int, list[int], list[int]]] = []

    def pull(self) -> MicroBatch:
        ids, masks, pieces = zip(*(self._row() for _ in range(self.batch)), strict=True)
        inputs, targets = packing.supervised(np.asarray(ids), np.asarray(masks))
        # The pass ends when all were placed, not when all were read: some still wait in the buffer.
        consumed = self.cursor.rank + self.placed * self.cursor.ranks
        progress, last = consumed / self.to_place, consumed >= self.to_place
        return MicroBatch(inputs, targets, self.cursor.epoch, progress, last, pieces=pieces)

    def get_state(self) -> dict[str, Any]:
        return {
            "cursor": self.cursor.state(), "buffer": [index for index, _, _ in self._buffer],
            "placed": self.placed, "dropped": self.dropped,
        }  # fmt: skip

    def set_state(self, state: Mapping[str, Any]) -> None:
        self.cursor.restore(state["cursor"])
        self._buffer = [(i, *self.cursor.read(i)) for i in state["buffer"]]
        self.placed, self.dropped = int(state["placed"]), int(state["dropped"])

    def _row(self) -> tuple[list[int], list[int], list[Piece]]:
        """Ids and mask of a full row, and its conversations."""
        ids, mask, pieces = [], [], []
        while room := self.capacity - len(ids):
            self._fill()
            i, fits = packing.choose([len(entry[1]) for entry in self._buffer], room)
            if not fits:
                return ids + [self.bos] * room, mask + [0] * room, pieces
            index, more_ids, more_mask = self._buffer.pop(i)
            ids, mask = [*ids, *more_ids], [*mask, *more_mask]
            pieces.append(Piece(index, 0, len(more_ids)))
            self.placed += 1
        return ids, mask, pieces

    def _fill(self) -> None:
        """Fills the buffer; drops what can never be placed once that is all it holds."""
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
            self.dropped += len(self._buffer)
            self.placed += len(self._buffer)
            self._buffer.clear()
            if self.dropped >= 2 * self._warned:  # at first, and whenever the number has doubled
                self._warned = self.dropped
                message = "%d conversations longer than a row of %d tokens are left out so far"
                log.warning(message, self.dropped, self.capacity - 1)
