"""Texts and chats of one's own, into the form that training reads; validation stays validation.

Documents: every row of a parquet column `text`, every JSONL line's `"text"`, and of a text file
every paragraph block when it is long (see `text_documents`).
"""

import dataclasses
import gzip
import hashlib
import itertools
import json
import pathlib
import random
import zlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from nanochat_jax.config import paths
from nanochat_jax.data import manifest, shards
from nanochat_jax.files import write_text
from nanochat_jax.tasks.conversation import read_conversations
from nanochat_jax.tasks.jsonl import open_text, read_values

VAL_NAME = "shard_99999.parquet"  # sorts after every other shard, so it is the one that validates
VAL_SHARE = 0.02
# A shard is held in memory while it is written, and a run may take the first few alone.
SHARD_CHARACTERS = 50_000_000
DOCUMENT_CHARACTERS = 2_000  # a text file is cut at paragraphs into pieces of about this size
ENDINGS = (".parquet", ".jsonl", ".txt", ".md", ".text")


@dataclasses.dataclass(frozen=True)
class Added:
    """What an import did: documents (or conversations) that are new, and those dropped as known."""

    train: int
    val: int
    duplicates: int
    files: int


def add_documents(root: pathlib.Path, files_or_folders: Sequence[pathlib.Path]) -> Added:
    """Imports documents into `base_data/`: new training shards, and the one validation shard.

    Raises:
        FileNotFoundError: a path does not exist, or a folder holds nothing to import.
        ValueError: a damaged or foreign file, naming file and row or line.
    """
    folder = paths.base_data(root)
    files = list(_input_files(files_or_folders, ENDINGS))
    existing = shards.list_shards(folder)
    # Their last shard validates: with ours behind it, it would be trained on.
    if existing and existing[-1].name != VAL_NAME:
        raise ValueError(
            f"{folder} holds shards that were downloaded or put there by hand; the last, "
            f"{existing[-1].name}, validates. For texts of your own use another base directory: "
            "NANOCHAT_BASE_DIR=... python -m scripts.data add PATH..."
        )
    new = itertools.chain.from_iterable(map(read_documents, files))
    train, val, duplicates = _split(_texts(existing), new)
    if not (train or existing):
        raise ValueError(f"{len(files)} file(s) hold no new document; nothing was imported")
    if not (val or existing):
        val.append(train.pop())  # a few documents alone: one of them validates
    # Validation first: killed behind it, the import can be called again and finds what is missing;
    # without it the folder would be one of shards put there by hand, which takes nothing more.
    _write(folder / VAL_NAME, [*_texts(existing[-1:]), *val])
    random.Random(0).shuffle(train)  # a run that reads a part of them meets every source
    for number, shard in enumerate(shards.cut(train, SHARD_CHARACTERS), len(existing[:-1])):
        _write(folder / shards.shard_name(number), shard)
    return Added(len(train), len(val), duplicates, len(files))


def _write(path: pathlib.Path, texts: Sequence[str]) -> None:
    """Writes a shard and its digest. Killed between the two it has none, and no wrong one."""
    manifest.forget(path.parent, path.name)
    shards.write_shard(path, texts)
    manifest.record(path.parent, manifest.digests([path]))


def add_conversations(root: pathlib.Path, files_or_folders: Sequence[pathlib.Path]) -> Added:
    """Imports conversations into `conversations/{train,val}.jsonl`; raises as `add_documents`."""
    files = list(_input_files(files_or_folders, (".jsonl",)))
    old_train, old_val = (_lines(paths.conversations(root, split)) for split in ("train", "val"))
    read = itertools.chain.from_iterable(map(read_conversations, files))
    new = (json.dumps(messages, ensure_ascii=False) for messages in read)
    train, val, duplicates = _split([*old_train, *old_val], new)
    if train and not (val or old_val) and len(old_train) + len(train) > 1:
        val.append(train.pop())
    for split, lines in (("train", old_train + train), ("val", old_val + val)):
        write_text(paths.conversations(root, split), "".join(line + "\n" for line in lines))
    return Added(len(train), len(val), duplicates, len(files))


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


def _input_files(given: Iterable[pathlib.Path], endings: Sequence[str]) -> Iterator[pathlib.Path]:
    """The files, and all that fit under the folders, by name; raises as `add_documents`."""
    # Notes that come with a data set are not meant; a file that is named itself always is.
    meant = lambda p: p.is_file() and not p.name.startswith(".") and "README" not in p.name.upper()
    fits = lambda p: _kind_of(p) in endings
    for path in given:
        if not path.exists():
            raise FileNotFoundError(f"no file or folder {path}")
        if path.is_dir():
            found = sorted(p for p in path.rglob("*") if fits(p) and meant(p))
        elif fits(path):
            found = [path]
        else:
            listed = ", ".join(endings)
            raise ValueError(f"{path}: expected a file ending in {listed} (or with .gz)")
        if not found:
            raise FileNotFoundError(f"{path} holds no {', '.join(endings)} file (nor .gz of one)")
        yield from found


def _kind_of(path: pathlib.Path) -> str:
    """The ending that says what a file holds, `.gz` aside."""
    return (path.with_suffix("") if path.suffix == ".gz" else path).suffix


def read_documents(path: pathlib.Path) -> Iterator[str]:
    """The documents of one file, empty ones left out."""
    kind = _kind_of(path)
    if kind == ".parquet":
        texts = _texts([path])
    else:
        texts = read_values(path, _text_of) if kind == ".jsonl" else text_documents(path)
    return (text for text in texts if text.strip())


def _text_of(value: Any) -> str:
    """The document of a JSONL line: `{"text": ...}` or a bare string."""
    text = value.get("text") if isinstance(value, dict) else value
    if not isinstance(text, str):
        raise ValueError(f'expected {{"text": "..."}}, got {json.dumps(value)[:60]}')
    return text


def text_documents(path: pathlib.Path) -> Iterator[str]:
    """A text file as documents: paragraphs joined up to about 2,000 characters each."""
    # A book in one piece would be one document, and all of it train or all of it validate.
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
    return itertools.chain.from_iterable(shards.iter_documents(files))


def _lines(path: pathlib.Path) -> list[str]:
    """The lines of a file of ours; none without a file."""
    # Not `splitlines`: a message may hold other line ends, such as U+2028.
    return path.read_text(encoding="utf-8").split("\n")[:-1] if path.exists() else []
