"""What the tokens of a row are of: a document of a shard, or a conversation of a task."""

from collections.abc import Callable, Mapping
from typing import NamedTuple

from nanochat_jax.data.documents import Position
from nanochat_jax.data.shards import Shards
from nanochat_jax.tasks import Mixture
from nanochat_jax.tasks.task import source_row


class Document(NamedTuple):
    """A row of a shard's column `text`, by row group."""

    shard: str
    sha256: str  # or the size in bytes, where the run knew no more
    group: int
    doc: int
    epoch: int

    def __str__(self) -> str:
        return f"{self.shard} ({self.sha256[:19]}) group {self.group} document {self.doc}"


class Chat(NamedTuple):
    """A row of a task: its number in the mixture, in the task's order, and in the task's file."""

    index: int
    task: str
    row: int
    source_row: int

    def __str__(self) -> str:
        return f"{self.task} row {self.row} (of its source {self.source_row})"


def documents(data: Shards, what: Mapping[str, str]) -> Callable[[Position], Document]:
    """Names the sources of a pretraining loader's pieces; `what` as of `manifest.identify`."""

    def named(at: Position) -> Document:
        shard = data.train[at.file].name
        return Document(shard, what[shard], at.group, at.doc, at.epoch)

    return named


def chats(mixture: Mixture) -> Callable[[int], Chat]:
    """Names the sources of a chat loader's pieces."""

    def named(index: int) -> Chat:
        task, row = mixture.at(index)
        return Chat(index, task.name, row, source_row(task.rows, row))

    return named
