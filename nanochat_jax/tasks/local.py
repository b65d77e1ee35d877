"""Tasks over files of the base directory: conversations of one's own, and raw documents."""

import dataclasses
import functools
import pathlib
from collections.abc import Sequence
from typing import Any

import pyarrow.parquet as pq

from nanochat_jax.tasks.conversation import read_conversations


@dataclasses.dataclass(frozen=True)
class Conversations:
    """The conversations of a JSONL file, checked line by line when first read."""

    path: pathlib.Path

    @functools.cached_property
    def rows(self) -> Sequence[Any]:
        return tuple(read_conversations(self.path))

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {"messages": self.rows[index]}


@dataclasses.dataclass(frozen=True)
class Documents:
    """The first `stop` texts of parquet shards (None: all), as raw items `{"text": ...}`."""

    files: tuple[pathlib.Path, ...]
    stop: int | None = None

    @functools.cached_property
    def rows(self) -> Sequence[str]:
        texts: list[str] = []
        for path in self.files:
            texts += pq.read_table(path, columns=["text"]).column("text").to_pylist()
            if self.stop is not None and len(texts) >= self.stop:
                break
        return texts[: self.stop]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, str]:
        return {"text": self.rows[index]}
