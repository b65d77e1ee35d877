"""Texts and chats of one's own, into the form that training reads; validation stays validation.

Documents: every row of a parquet column `text`, every JSONL line's `"text"`, and of a text file
every paragraph block when it is long (see `text_documents`). Which documents validate is decided
by a hash of the document itself, so adding more later moves none across.
"""

import dataclasses
import gzip
import hashlib
import json
import logging
import pathlib
import random
from collections.abc import Iterable, Iterator, Sequence

from nanochat_jax.data import shards
from nanochat_jax.tasks.conversation import read_conversations

log = logging.getLogger(__name__)

VAL_NAME = "shard_99999.parquet"  # sorts after every other shard
VAL_SHARE = 0.02
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


def add_documents(root: pathlib.Path, paths: Sequence[pathlib.Path]) -> Added:
    """Imports documents into `base_data/`: new training shards, and the one validation shard.

    Raises:
        FileNotFoundError: a path does not exist, or a folder holds nothing to import.
        ValueError: a damaged or foreign file, naming file and row or line.
    """
    folder = root / "base_data"
    files = [f for path in paths for f in input_files(path, ENDINGS)]
    existing = shards.list_shards(folder)
    _refuse_foreign(existing)
    seen = {_digest(t) for group in shards.iter_documents(existing) for t in group}
    val = [t for g in shards.iter_documents([f for f in existing if f.name == VAL_NAME]) for t in g]
    had, train, duplicates = len(val), [], 0
    for text in (t for file in files for t in read_documents(file)):
        digest = _digest(text)
        if digest in seen:
            duplicates += 1
            continue
        seen.add(digest)
        (val if _validates(digest, VAL_SHARE) else train).append(text)
    if not train and not had:
        raise ValueError(f"{len(files)} file(s) hold no new document; nothing was imported")
    if not val:
        val.append(train.pop())  # a few documents alone: one of them validates
    random.Random(0).shuffle(train)  # a run that reads a part of them meets every source
    number = len([f for f in existing if f.name != VAL_NAME])
    for shard in _cut(train, SHARD_CHARACTERS):
        shards.write_shard(folder / f"shard_{number:05d}.parquet", shard)
        number += 1
    shards.write_shard(folder / VAL_NAME, val)
    return Added(len(train), len(val) - had, duplicates, len(files))


def add_conversations(root: pathlib.Path, paths: Sequence[pathlib.Path]) -> Added:
    """Imports conversations into `conversations/{train,val}.jsonl`, all or none of them.

    Raises:
        FileNotFoundError, ValueError: as `add_documents`; a bad line is named with what is wrong.
    """
    folder = root / "conversations"
    files = [f for path in paths for f in input_files(path, (".jsonl",))]
    kept: dict[str, list[str]] = {"train": [], "val": []}
    for split in kept:
        if (path := folder / f"{split}.jsonl").exists():
            kept[split] = path.read_text(encoding="utf-8").splitlines()
    had = {split: len(lines) for split, lines in kept.items()}
    seen, duplicates = {_digest(line) for lines in kept.values() for line in lines}, 0
    for messages in (m for file in files for m in read_conversations(file)):
        line = json.dumps(messages, ensure_ascii=False)
        digest = _digest(line)
        if digest in seen:
            duplicates += 1
            continue
        seen.add(digest)
        kept["val" if _validates(digest, VAL_SHARE) else "train"].append(line)
    if not kept["val"] and len(kept["train"]) > 1:
        kept["val"].append(kept["train"].pop())
    folder.mkdir(parents=True, exist_ok=True)
    for split, lines in kept.items():
        part = folder / f".{split}.part"
        part.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
        part.replace(folder / f"{split}.jsonl")
    new = {split: len(kept[split]) - had[split] for split in kept}
    return Added(new["train"], new["val"], duplicates, len(files))


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
    return not path.name.startswith(".") and "README" not in path.name.upper()


def read_documents(path: pathlib.Path) -> Iterator[str]:
    """The documents of one file, empty ones left out."""
    readers = {".parquet": _parquet, ".jsonl": _jsonl}
    texts = readers.get(kind_of(path), text_documents)(path)
    return (t for t in texts if t.strip())


def _parquet(path: pathlib.Path) -> Iterator[str]:
    for texts in shards.iter_documents([path]):
        yield from texts


def _jsonl(path: pathlib.Path) -> Iterator[str]:
    for number, line in enumerate(_lines(path), 1):
        if not line.strip():
            continue
        try:
            value = json.loads(line)
        except json.JSONDecodeError as error:
            raise ValueError(f"{path}, line {number}: not valid JSON ({error})") from None
        text = value.get("text") if isinstance(value, dict) else value
        if not isinstance(text, str):
            raise ValueError(f'{path}, line {number}: expected {{"text": "..."}}, got {line[:60]}')
        yield text


def text_documents(path: pathlib.Path) -> Iterator[str]:
    """A text file as documents: paragraphs joined up to about 2,000 characters each."""
    piece: list[str] = []
    size = 0
    for paragraph in "".join(_lines(path)).split("\n\n"):
        if size + len(paragraph) > DOCUMENT_CHARACTERS and piece:
            yield "\n\n".join(piece)
            piece, size = [], 0
        piece.append(paragraph)
        size += len(paragraph)
    yield "\n\n".join(piece)


def _lines(path: pathlib.Path) -> Iterator[str]:
    """Lines of a text file, plain or gzipped.

    Raises:
        ValueError: it is no UTF-8, or the compressed file is damaged.
    """
    number = 0
    try:
        with (gzip.open if path.suffix == ".gz" else open)(path, "rt", encoding="utf-8") as lines:
            for line in lines:
                number += 1
                yield line
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}, after line {number}: not UTF-8 text ({error})") from None
    except (EOFError, gzip.BadGzipFile, OSError) as error:
        raise ValueError(f"{path} is damaged after line {number}: {error}") from None


def _cut(texts: Iterable[str], size: int) -> Iterator[list[str]]:
    """Lists of texts of about `size` characters."""
    shard: list[str] = []
    held = 0
    for text in texts:
        shard.append(text)
        held += len(text)
        if held >= size:
            yield shard
            shard, held = [], 0
    if shard:
        yield shard


def _digest(text: str) -> bytes:
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()


def _validates(digest: bytes, share: float) -> bool:
    return int.from_bytes(digest[:8]) < share * 2**64


def _refuse_foreign(existing: Sequence[pathlib.Path]) -> None:
    """Own texts beside downloaded shards would move the validation shard: that is not done."""
    if existing and existing[-1].name != VAL_NAME:
        raise ValueError(
            f"{existing[0].parent} holds shards that were downloaded or put there by hand; the "
            f"last, {existing[-1].name}, validates. For texts of your own use another base "
            "directory: NANOCHAT_BASE_DIR=... python -m scripts.data add PATH..."
        )
