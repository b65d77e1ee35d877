"""What `data add` is given: which files are meant, and the documents that are in them.

Documents: every row of a parquet column `text`, every JSONL line's `"text"`, and of a text file
every paragraph block when it is long (see `text_documents`).
"""

import collections
import itertools
import json
import pathlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from nanochat_jax.data import shards
from nanochat_jax.tasks.jsonl import read_values
from nanochat_jax.texts import ending, is_zipped, read_chunks

DOCUMENT_CHARACTERS = 2_000  # a text file is cut at paragraphs into pieces of about this size
# A paragraph beyond this is none: a file with a sentence a line, say. Its lines are taken for such.
LONGEST_PARAGRAPH = 10 * DOCUMENT_CHARACTERS
ENDINGS = (".parquet", ".jsonl", ".txt", ".md", ".text")


def find(
    given: Iterable[pathlib.Path], endings: Sequence[str]
) -> tuple[list[pathlib.Path], list[str]]:
    """(files, what is left out of the folders and why).

    Raises:
        FileNotFoundError: a path does not exist, or a folder holds nothing to import.
        ValueError: a file that is named itself has none of the endings.
    """
    files, left = [], collections.Counter()
    listed = ", ".join(endings)
    for path in given:
        if not path.exists():
            raise FileNotFoundError(f"no file or folder {path}")
        # What is named itself is meant, whatever it is called.
        if not path.is_dir():
            if not _fits(path, endings):
                raise ValueError(f"{path}: expected a file ending in {listed} (or with .gz)")
            files.append(path)
            continue
        reasons = {p: _reason(p, path, endings) for p in sorted(path.rglob("*")) if p.is_file()}
        if not (found := [p for p, reason in reasons.items() if not reason]):
            raise FileNotFoundError(f"{path} holds no {listed} file (nor .gz of one)")
        files += found
        left.update(filter(None, reasons.values()))
    return files, [f"{count} {reason}" for reason, count in left.items()]


def _fits(path: pathlib.Path, endings: Sequence[str]) -> bool:
    # Parquet is compressed inside.
    return ending(path) in endings and not (is_zipped(path) and ending(path) == ".parquet")


def _reason(path: pathlib.Path, folder: pathlib.Path, endings: Sequence[str]) -> str:
    """Why a file below a folder is not meant; empty if it is."""
    # What a system or an editor keeps beside files (`._a.txt`, `.git`, `.ipynb_checkpoints`).
    if any(part.startswith(".") for part in path.relative_to(folder).parts):
        return "hidden file(s)"
    if not _fits(path, endings):
        return f"ending in {''.join(path.suffixes[-2:]) if is_zipped(path) else path.suffix!r}"
    return "named README" if "README" in path.name.upper() else ""


def read_documents(path: pathlib.Path) -> Iterator[str]:
    """The documents of one file, empty ones left out."""
    kind = ending(path)
    if kind == ".parquet":
        texts = itertools.chain.from_iterable(shards.iter_documents([path]))
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
    held: list[str] = []
    size = 0
    for border, piece in _pieces(path):
        if size + len(piece) > DOCUMENT_CHARACTERS and held:
            yield "".join(held)
            held, size = [], 0
        held.append(border + piece if held else piece)
        size += len(piece)
    yield "".join(held)


def _pieces(path: pathlib.Path) -> Iterator[tuple[str, str]]:
    """What may not be cut, and what stands before it: paragraphs, or the lines of a long one."""
    rest, border = "", "\n\n"  # before the rest; a line end where it goes on with a long paragraph
    for chunk in read_chunks(path):
        *whole, rest = (rest + chunk).split("\n\n")
        for paragraph in whole:
            yield from _cut(border, paragraph)
            border = "\n\n"
        # The lines of a long one go at once: a file may hold no blank line, and would be split anew
        # for each chunk. Not at its last character, which may be the first of a blank line.
        end = rest.rfind("\n", 0, -1)
        if end >= 0 and _is_long(border, rest[:-1]):
            yield from _cut(border, rest[:end], long=True)
            rest, border = rest[end + 1 :], "\n"
    yield from _cut(border, rest)


def _is_long(border: str, text: str) -> bool:
    return border == "\n" or len(text) > LONGEST_PARAGRAPH


def _cut(border: str, text: str, long: bool = False) -> Iterator[tuple[str, str]]:
    """A paragraph, or the lines of a long one or of what is left of it."""
    lines = text.split("\n") if long or _is_long(border, text) else [text]
    yield border, lines[0]
    yield from (("\n", line) for line in lines[1:])
