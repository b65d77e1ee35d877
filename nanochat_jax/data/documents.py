"""Tokenised documents in the order of the original's rank, from any position on."""

import functools
import itertools
import logging
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from nanochat_jax.data import shards
from nanochat_jax.tokenizer import Tokenizer

log = logging.getLogger(__name__)


class Position(NamedTuple):
    """One document: epoch (from 1), file, row group in the file, document in the group."""

    epoch: int
    file: int
    group: int
    doc: int


class TokenizedDocuments:
    """An endless stream of (Position, ids): bos and the document's tokens, epoch after epoch.

    Rank `rank` of `ranks` reads row groups rank, rank + ranks, ... of every file. Documents are
    tokenised `batch` at a time. Nothing is shuffled: the published shards are shuffled already,
    and an order that is the files' own can be named by four numbers.

    Raises:
        ValueError: no row group of this rank holds a document: it would be awaited for ever.
    """

    def __init__(
        self, files: Sequence[pathlib.Path], tokenizer: Tokenizer, rank: int = 0, ranks: int = 1,
        batch: int = 128,
    ):  # fmt: skip
        self.files, self.tokenizer = tuple(files), tokenizer
        self.rank, self.ranks, self.batch = rank, ranks, batch
        # One file and one row group (1024 documents) are held: a published shard is about 100 MB,
        # compressed, and a run reads hundreds. A file is closed when nothing holds it.
        self._file = functools.lru_cache(1)(shards.open_shard)
        self._group = functools.lru_cache(1)(shards.read_row_group)
        sizes = [shards.group_sizes(self._file(path)) for path in self.files]
        self.counts = list(map(len, sizes))
        if not any(map(any, sizes)):
            raise ValueError(f"no document in {', '.join(map(str, self.files)) or 'no file'}")
        if not any(any(file[rank::ranks]) for file in sizes):
            raise ValueError(
                f"rank {rank} of {ranks} finds no row group of its own with a document in "
                f"{len(self.files)} file(s) with {self.counts} row groups; use fewer ranks"
            )
        for path in (p for p, groups in zip(self.files, sizes, strict=True) if not any(groups)):
            log.warning("%s holds no document", path)

    def batches(self, start: Position) -> Iterator[tuple[list[Position], list[list[int]]]]:
        """Lists of up to `batch` documents with their positions, from `start` on."""
        for at in self._groups(start):
            texts = self._texts(at)
            doc = start.doc if at[:3] == start[:3] else 0
            # Lists begin at multiples of `batch` wherever one starts to read: best fit looks at
            # whole lists, so a resumed run must see the same ones.
            for i in range(doc - doc % self.batch, len(texts), self.batch):
                if chosen := range(max(i, doc), min(i + self.batch, len(texts))):
                    places = [at._replace(doc=d) for d in chosen]
                    yield places, self._encode([texts[d] for d in chosen])

    def first(self) -> Position:
        return Position(1, 0, self.rank, 0)

    def after(self, saved: Mapping[str, int]) -> Position:
        """Where the original resumes: the rank's first row group after the one last read."""
        group = (saved["rg_idx"] // self.ranks + 1) * self.ranks + self.rank
        return Position(saved.get("epoch", 1), saved["pq_idx"], group, 0)

    def read(self, places: Sequence[Position]) -> list[list[int]]:
        """The ids of some documents, in the order of `places`."""
        texts = [self._texts(at)[at.doc] for at in places]
        return self._encode(texts) if texts else []

    def _groups(self, start: Position) -> Iterator[Position]:
        """The rank's row groups from that of `start` on; a group behind its file's last is none."""
        for epoch in itertools.count(start.epoch):
            for file in range(start.file if epoch == start.epoch else 0, len(self.files)):
                first = start.group if (epoch, file) == start[:2] else self.rank
                for group in range(first, self.counts[file], self.ranks):
                    yield Position(epoch, file, group, 0)

    def _encode(self, texts: list[str]) -> list[list[int]]:
        return self.tokenizer.encode(texts, prepend=self.tokenizer.get_bos_token_id())

    def _texts(self, at: Position) -> list[str]:
        """The row group of a document."""
        path = self.files[at.file]
        return self._group(self._file(path), path, at.group)
