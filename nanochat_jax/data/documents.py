"""Tokenised documents in the order of the original's rank, from any position on."""

import pathlib
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from nanochat_jax.data import shards
from nanochat_jax.tokenizer import Tokenizer


class Position(NamedTuple):
    """One document: epoch (from 1), file, row group in the file, document in the group."""

    epoch: int
    file: int
    group: int
    doc: int


class Documents:
    """An endless stream of (Position, ids): bos and the document's tokens, epoch after epoch.

    Rank `rank` of `ranks` reads row groups rank, rank + ranks, ... of every file; documents are
    tokenised `batch` at a time, which costs nothing in exactness: the order is the same.

    Raises:
        ValueError: no file has a row group for this rank, which would never yield anything.
    """

    def __init__(
        self,
        files: Sequence[pathlib.Path],
        tokenizer: Tokenizer,
        rank: int = 0,
        ranks: int = 1,
        batch: int = 128,
    ):
        self.files, self.tokenizer = tuple(files), tokenizer
        self.rank, self.ranks, self.batch = rank, ranks, batch
        self._open: tuple[int, object] | None = None
        self._group: tuple[tuple[int, int], list[str]] | None = None
        counts = [self._file(i).num_row_groups for i in range(len(self.files))]
        if not counts or max(counts) <= rank:
            raise ValueError(
                f"rank {rank} of {ranks} finds no row group of its own in {len(self.files)} "
                f"file(s) with {counts} row groups; use fewer ranks"
            )
        self.counts = counts

    def batches(self, start: Position) -> Iterator[tuple[list[Position], list[list[int]]]]:
        """Lists of up to `batch` documents with their positions, from `start` on."""
        epoch, file, group, doc = start
        while True:
            while file < len(self.files):
                while group < self.counts[file]:
                    texts = self._texts(file, group)
                    for i in range(doc - doc % self.batch, len(texts), self.batch):
                        chosen = range(max(i, doc), min(i + self.batch, len(texts)))
                        if not chosen:  # `start` was behind the group's last document
                            continue
                        places = [Position(epoch, file, group, d) for d in chosen]
                        yield places, self._encode([texts[d] for d in chosen])
                    group, doc = group + self.ranks, 0
                file, group = file + 1, self.rank
            epoch, file = epoch + 1, 0

    def first(self) -> Position:
        return Position(1, 0, self.rank, 0)

    def after(self, file: int, group: int, epoch: int) -> Position:
        """Where the original resumes: the rank's first row group after the saved one."""
        group = (group // self.ranks + 1) * self.ranks + self.rank
        over = file < len(self.counts) and group >= self.counts[file]
        return Position(epoch, file + 1, self.rank, 0) if over else Position(epoch, file, group, 0)

    def read(self, places: Sequence[Position]) -> list[list[int]]:
        """The ids of some documents, in the order asked for."""
        texts = [self._texts(p.file, p.group)[p.doc] for p in places]
        return self._encode(texts) if texts else []

    def _encode(self, texts: list[str]) -> list[list[int]]:
        return self.tokenizer.encode(texts, prepend=self.tokenizer.get_bos_token_id())

    def _file(self, index: int):
        if self._open is None or self._open[0] != index:
            if self._open is not None:
                self._open[1].close()
            self._open = (index, shards.open_shard(self.files[index]))
        return self._open[1]

    def _texts(self, file: int, group: int) -> list[str]:
        """One row group; the last one read is kept."""
        if self._group is None or self._group[0] != (file, group):
            texts = shards.read_row_group(self._file(file), self.files[file], group)
            self._group = ((file, group), texts)
        return self._group[1]
