"""Texts and chats of one's own, into the form that training reads; validation stays validation."""

import dataclasses
import functools
import hashlib
import itertools
import json
import pathlib
import random
from collections.abc import Callable, Iterable, Iterator, Sequence

from nanochat_jax import locks
from nanochat_jax.config import paths
from nanochat_jax.data import inputs, manifest, shards
from nanochat_jax.files import write_text
from nanochat_jax.tasks.conversation import Messages, answered_messages, read_conversations
from nanochat_jax.tasks.jsonl import read_values

VAL_SHARE = 0.02
# A shard is held in memory while it is written, and a run may take the first few alone.
SHARD_CHARACTERS = 50_000_000
PATIENCE_S = 120.0  # with another import at work


@dataclasses.dataclass(frozen=True)
class Added:
    """What an import did: documents (or conversations) that are new, and those dropped as known.

    `left_out` says of what else was given why it was not taken.
    """

    train: int
    val: int
    duplicates: int
    files: int
    left_out: tuple[str, ...] = ()


def _one_at_a_time(add: Callable[..., Added]) -> Callable[..., Added]:
    """Both read what is there and write it anew: two at once would lose what one of them wrote."""

    @functools.wraps(add)
    def locked(root: pathlib.Path, files_or_folders: Sequence[pathlib.Path]) -> Added:
        with locks.held(root / "data-add", PATIENCE_S):
            return add(root, files_or_folders)

    return locked


@_one_at_a_time
def add_documents(root: pathlib.Path, files_or_folders: Sequence[pathlib.Path]) -> Added:
    """Imports documents into `base_data/`: new training shards, and the one validation shard.

    Raises:
        FileNotFoundError: a path does not exist, or a folder holds nothing to import.
        ValueError: a damaged or foreign file, naming file and row or line.
    """
    folder = paths.base_data(root)
    files, left_out = inputs.find(files_or_folders, inputs.ENDINGS)
    existing = shards.list_shards(folder)
    # Their last shard validates: with ours behind it, it would be trained on.
    if existing and existing[-1].name != shards.VAL_NAME:
        raise ValueError(
            f"{folder} holds shards that were downloaded or put there by hand; the last, "
            f"{existing[-1].name}, validates. For texts of your own use another base directory: "
            "NANOCHAT_BASE_DIR=... python -m scripts.data add PATH..."
        )
    new = itertools.chain.from_iterable(map(inputs.read_documents, files))
    train, val, duplicates = _split(_texts(existing), new)
    if not (train or val or existing):
        raise ValueError(f"no document in {_names(files)}; nothing was imported")
    old_val = list(_texts(existing[-1:]))
    _both_sides(train, val, list(filter(shards.count_documents, existing[:-1])), old_val)
    if not (val or old_val):
        train, val = [], train  # one alone validates until another comes
    # Validation first: killed behind it, the import can be called again and finds what is missing;
    # without it the folder would be one of shards put there by hand, which takes nothing more.
    _write(folder / shards.VAL_NAME, [*old_val, *val])
    random.Random(0).shuffle(train)  # a run that reads a part of them meets every source
    names = shards.free_names(folder, below=shards.VAL_NAME)
    for shard in shards.cut(train, SHARD_CHARACTERS):
        _write(folder / next(names), shard)
    return Added(len(train), len(val), duplicates, len(files), tuple(left_out))


def _write(path: pathlib.Path, texts: Sequence[str]) -> None:
    """Writes a shard and its digest. Killed between the two it has none, and no wrong one."""
    manifest.forget(path.parent, path.name)
    shards.write_shard(path, texts)
    manifest.record(path.parent, manifest.digests([path]))


@_one_at_a_time
def add_conversations(root: pathlib.Path, files_or_folders: Sequence[pathlib.Path]) -> Added:
    """Imports conversations into `conversations/{train,val}.jsonl`; raises as `add_documents`."""
    files, left_out = inputs.find(files_or_folders, (".jsonl",))
    where = {split: paths.conversations(root, split) for split in ("train", "val")}
    old = {split: _stored(path) for split, path in where.items()}
    unanswered = _Unanswered()
    new = map(_line, unanswered.without(files))
    train, val, duplicates = _split([*old["train"], *old["val"]], new)
    if not (train or val or old["train"] or old["val"]):
        raise ValueError(f"no conversation with a reply in {_names(files)}; nothing was imported")
    _both_sides(train, val, old["train"], old["val"])
    for split, lines in (("train", old["train"] + train), ("val", old["val"] + val)):
        if lines:
            write_text(where[split], "".join(line + "\n" for line in lines))
    left_out += unanswered.told()
    return Added(len(train), len(val), duplicates, len(files), tuple(left_out))


class _Unanswered:
    """Reads conversations, and counts what is left out of them for want of a reply."""

    def __init__(self) -> None:
        self.messages = self.conversations = 0

    def without(self, files: Iterable[pathlib.Path]) -> Iterator[Messages]:
        for path in files:
            for messages, dropped in read_values(path, answered_messages):
                self.messages += dropped
                self.conversations += not messages
                if messages:
                    yield messages

    def told(self) -> list[str]:
        if not self.messages:
            return []
        whole = f", of which {self.conversations} conversation(s) whole"
        return [f"{self.messages} message(s) without a reply{whole * bool(self.conversations)}"]


def _stored(path: pathlib.Path) -> list[str]:
    """The lines of a file of ours, as they are written today; none without a file."""
    return [_line(messages) for messages in read_conversations(path)] if path.exists() else []


def _line(messages: Messages) -> str:
    return json.dumps(messages, ensure_ascii=False)


def _names(files: Sequence[pathlib.Path]) -> str:
    more = f" and {len(files) - 3} more" if len(files) > 3 else ""
    return ", ".join(map(str, files[:3])) + more


def _both_sides(
    train: list[str], val: list[str], had_train: Sequence[object], had_val: Sequence[object]
) -> None:
    """Moves one where a few of them all fell to one side: training needs both."""
    if not (val or had_val) and len(train) + len(had_train) > 1:
        val.append(train.pop())
    elif not (train or had_train) and len(val) + len(had_val) > 1:
        train.append(val.pop())


def _split(known: Iterable[str], texts: Iterable[str]) -> tuple[list[str], list[str], int]:
    """(train, val, number known before): new texts, each once, by the split of its hash."""
    # A hash of the text itself, and not its place or a draw, because texts are added again and
    # again: whatever is added when, a document stays on its side, and one that is trained on never
    # turns up in validation. Of those that are there, 16 bytes each are held in memory.
    encoded = lambda text: text.encode("utf-8", "surrogatepass")
    digest_of = lambda text: hashlib.blake2b(encoded(text), digest_size=16).digest()
    seen = set(map(digest_of, known))
    train, val, duplicates = [], [], 0
    for text in texts:
        if (digest := digest_of(text)) in seen:
            duplicates += 1
            continue
        seen.add(digest)
        (val if int.from_bytes(digest[:8]) < VAL_SHARE * 2**64 else train).append(text)
    return train, val, duplicates


def _texts(files: Sequence[pathlib.Path]) -> Iterator[str]:
    return itertools.chain.from_iterable(shards.iter_documents(files))
