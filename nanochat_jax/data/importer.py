"""Texts and chats of one's own, into the form that training reads; validation stays validation.

Documents: every row of a parquet column `text`, every JSONL line's `"text"`, and of a text file
every paragraph block when it is long (see `text_documents`).
"""

import dataclasses
import gzip
import hashlib
import json
import pathlib
import random
import zlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from nanochat_jax.config import paths
from nanochat_jax.data import shards
from nanochat_jax.files import write_text
from nanochat_jax.tasks.conversation import read_conversations
from nanochat_jax.tasks.jsonl import open_text, read_values

VAL_NAME = "shard_99999.parquet"  # sorts after every other shard, so it is the one that validates
VAL_SHARE = 0.02
# A shard is held in memory while it is written, and a run may take the first few alone.
SHARD_CHARACTERS = 50_000_000
DOCUMENT_CHARACTERS = 2_000  # a text file is cut at paragraphs into pieces of about this size
TEXT_ENDINGS = (".txt", ".md", ".text")
ENDINGS = (".parquet", ".jsonl", *TEXT_ENDINGS)


@dataclasses.dataclass(frozen=True)
class Added:
    """What an import did: documents (or conversations) that are new, and those dropped as known."""

    train: int
    val: int
    duplicates: int
    files: int


class _Split:
    """New texts, each once, by the split that its hash puts it into.

    A hash of the text itself, and not its place or a draw, because texts are added again and
    again: whatever is added when, a document stays on its side, and one that is trained on never
    turns up in validation.
    """

    def __init__(self, known: Iterable[str]):
        self.train: list[str] = []
        self.val: list[str] = []
        self.duplicates = 0
        self._seen = set(map(_digest, known))

    def add(self, text: str) -> None:
        digest = _digest(text)
        if digest in self._seen:
            self.duplicates += 1
            return
        self._seen.add(digest)
        validates = int.from_bytes(digest[:8]) < VAL_SHARE * 2**64
        (self.val if validates else self.train).append(text)


def add_documents(root: pathlib.Path, files_or_folders: Sequence[pathlib.Path]) -> Added:
    """Imports documents into `base_data/`: new training shards, and the one validation shard.

    Raises:
        FileNotFoundError: a path does not exist, or a folder holds nothing to import.
        ValueError: a damaged or foreign file, naming file and row or line.
    """
    folder = paths.base_data(root)
    files = [f for path in files_or_folders for f in input_files(path, ENDINGS)]
    existing = shards.list_shards(folder)
    _refuse_foreign(existing)
    old_train, old_val = existing[:-1], existing[-1:]
    split = _Split(_texts(existing))
    for file in files:
        for text in read_documents(file):
            split.add(text)
    train, val = split.train, [*_texts(old_val), *split.val]
    had = len(val) - len(split.val)
    if not train and not old_val:
        raise ValueError(f"{len(files)} file(s) hold no new document; nothing was imported")
    if not val:
        val.append(train.pop())  # a few documents alone: one of them validates
    # Validation first: killed behind it, the import can be called again and finds what is missing;
    # without it the folder would be one of shards put there by hand, which takes nothing more.
    shards.write_shard(folder / VAL_NAME, val)
    random.Random(0).shuffle(train)  # a run that reads a part of them meets every source
    for number, shard in enumerate(shards.cut(train, SHARD_CHARACTERS), len(old_train)):
        shards.write_shard(folder / shards.shard_name(number), shard)
    return Added(len(train), len(val) - had, split.duplicates, len(files))


def add_conversations(root: pathlib.Path, files_or_folders: Sequence[pathlib.Path]) -> Added:
    """Imports conversations into `conversations/{train,val}.jsonl`, all or none of them.

    Raises:
        FileNotFoundError, ValueError: as `add_documents`; a bad line is named with what is wrong.
    """
    files = [f for path in files_or_folders for f in input_files(path, (".jsonl",))]
    old = {split: _lines(paths.conversations(root, split)) for split in ("train", "val")}
    split = _Split([*old["train"], *old["val"]])
    for file in files:
        for messages in read_conversations(file):
            split.add(json.dumps(messages, ensure_ascii=False))
    new = {"train": [*old["train"], *split.train], "val": [*old["val"], *split.val]}
    if not new["val"] and len(new["train"]) > 1:
        new["val"].append(new["train"].pop())
    for name, lines in new.items():
        write_text(paths.conversations(root, name), "".join(line + "\n" for line in lines))
    gained = {name: len(new[name]) - len(old[name]) for name in new}
    return Added(gained["train"], gained["val"], split.duplicates, len(files))


def input_files(path: pathlib.Path, endings: Sequence[str]) -> list[pathlib.Path]:
    """The file itself, or all that fit under a folder, by name.

    Raises:
        FileNotFoundError: there is no such path, or nothing that fits in the folder.
        ValueError: a file of a kind that cannot be imported.
    """
    if not path.exists():
        raise FileNotFoundError(f"no file or folder {path}")
    fits = lambda p: kind_of(p) in endings
    if path.is_dir():
        found = sorted(p for p in path.rglob("*") if p.is_file() and fits(p) and _is_data(p))
        if not found:
            raise FileNotFoundError(f"{path} holds no {', '.join(endings)} file (nor .gz of one)")
        return found
    if not fits(path):
        raise ValueError(f"{path}: expected a file ending in {', '.join(endings)} (or with .gz)")
    return [path]


def kind_of(path: pathlib.Path) -> str:
    """The ending that says what a file holds, `.gz` aside."""
    return (path.with_suffix("") if path.suffix == ".gz" else path).suffix


def _is_data(path: pathlib.Path) -> bool:
    """Whether a file found in a folder is meant: notes that come with a data set are not."""
    # A file that is named itself is always read; this is for what a folder holds beside the data.
    return not path.name.startswith(".") and "README" not in path.name.upper()


def read_documents(path: pathlib.Path) -> Iterator[str]:
    """The documents of one file, empty ones left out."""
    readers = {".parquet": _parquet, ".jsonl": _jsonl}
    texts = readers.get(kind_of(path), text_documents)(path)
    return (t for t in texts if t.strip())


def _parquet(path: pathlib.Path) -> Iterator[str]:
    return _texts([path])


def _jsonl(path: pathlib.Path) -> Iterator[str]:
    return read_values(path, _text_of)


def _text_of(value: Any) -> str:
    """The document of a JSONL line: `{"text": ...}` or a bare string."""
    text = value.get("text") if isinstance(value, dict) else value
    if not isinstance(text, str):
        raise ValueError(f'expected {{"text": "..."}}, got {json.dumps(value)[:60]}')
    return text


def text_documents(path: pathlib.Path) -> Iterator[str]:
    """A text file as documents: paragraphs joined up to about 2,000 characters each.

    A book in one piece would be one document, and all of it train or all of it validate.

    Raises:
        ValueError: it is no UTF-8, or the compressed file is damaged.
    """
    try:
        with open_text(path) as file:
            paragraphs = file.read().split("\n\n")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: not UTF-8 text ({error})") from None
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise ValueError(f"{path} is damaged: {error}") from None
    piece: list[str] = []
    size = 0
    for paragraph in paragraphs:
        if size + len(paragraph) > DOCUMENT_CHARACTERS and piece:
            yield "\n\n".join(piece)
            piece, size = [], 0
        piece.append(paragraph)
        size += len(paragraph)
    yield "\n\n".join(piece)


def _texts(files: Sequence[pathlib.Path]) -> Iterator[str]:
    return (text for group in shards.iter_documents(files) for text in group)


def _lines(path: pathlib.Path) -> list[str]:
    """The lines of a file of ours; none without a file."""
    # Not `splitlines`: a message may hold other line ends, such as U+2028.
    return path.read_text(encoding="utf-8").split("\n")[:-1] if path.exists() else []


def _digest(text: str) -> bytes:
    # 16 bytes of every text that is there already are held in memory, not the texts.
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()


def _refuse_foreign(existing: Sequence[pathlib.Path]) -> None:
    """Raises ValueError where own texts would lie beside downloaded shards."""
    # Their last shard validates: with ours behind it, it would be trained on.
    if existing and existing[-1].name != VAL_NAME:
        raise ValueError(
            f"{existing[0].parent} holds shards that were downloaded or put there by hand; the "
            f"last, {existing[-1].name}, validates. For texts of your own use another base "
            "directory: NANOCHAT_BASE_DIR=... python -m scripts.data add PATH..."
        )
