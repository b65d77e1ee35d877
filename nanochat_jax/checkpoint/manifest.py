"""What is in a step's folder, with size and SHA-256 of every file: how damage is found.

Orbax keeps no checksum of array data: a flipped byte restored without an error in two of three
places tried (0.12.8).
"""

import hashlib
import json
import pathlib
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from nanochat_jax.config.values import digest
from nanochat_jax.files import json_text, whole_file, write_json

NAME = "manifest.json"
META = "meta.json"
# While `meta.json` is being replaced: what it is about to become.
NEXT = "meta.json (next)"

Entry = tuple[int, str]  # bytes, SHA-256
Listed = dict[str, Entry]


def entry(file: pathlib.Path) -> Entry:
    """Size and digest of a file."""
    with file.open("rb") as stream:
        return file.stat().st_size, hashlib.file_digest(stream, "sha256").hexdigest()


def entry_of(data: bytes | memoryview) -> Entry:
    """The entry of a file that holds these bytes."""
    return len(data), hashlib.sha256(data).hexdigest()


def entries(folder: pathlib.Path, known: Mapping[str, Entry] = MappingProxyType({})) -> Listed:
    """Every file below a folder by its path there; read are those alone that are not `known`."""
    files = {p.relative_to(folder).as_posix(): p for p in sorted(folder.rglob("*")) if p.is_file()}
    # Of a known one the size is asked: a write that ended early without an error must not pass.
    fits = lambda name, file: name in known and file.stat().st_size == known[name][0]
    return {name: known[name] if fits(name, file) else entry(file) for name, file in files.items()}


def first_damaged(folder: pathlib.Path) -> str | None:
    """The first file that is missing or not as the manifest has it; None where all are.

    Raises:
        FileNotFoundError: there is no manifest.
    """
    listed = json.loads((folder / NAME).read_text("utf-8"))
    following = listed.pop(NEXT, None)
    for name, known in listed.items():
        allowed = [known, following] if name == META else [known]
        if not _is_one_of(folder / name, allowed):
            return name
    return None


def meta(folder: pathlib.Path) -> dict[str, Any]:
    """A step's `meta.json`; raises OSError or ValueError where it cannot be read."""
    return json.loads((folder / META).read_text("utf-8"))


def params_digest(folder: pathlib.Path) -> str:
    """A short digest of the parameters' files alone: it stays when `meta.json` is amended."""
    listed = json.loads((folder / NAME).read_text("utf-8"))
    return digest({name: known for name, known in listed.items() if name.startswith("params/")})


def amend_meta(folder: pathlib.Path, changes: Mapping[str, Any]) -> None:
    """Sets keys in a step's `meta.json`. Killed anywhere, it leaves a step that verifies.

    The manifest holds what the file is and what it is about to become, until it has become that.

    Raises:
        ValueError: `meta.json` is damaged: a new digest must not make that good.
    """
    listed = json.loads((folder / NAME).read_text("utf-8"))
    allowed = [listed.pop(META), listed.pop(NEXT, None)]
    if not _is_one_of(folder / META, allowed):
        raise ValueError(f"{folder / META} was changed since it was written: not touched")
    now = entry(folder / META)
    whole = json_text(json.loads((folder / META).read_text("utf-8")) | changes).encode()
    then = entry_of(whole)
    write_json(folder / NAME, listed | {META: now, NEXT: then})
    with whole_file(folder / META) as file:
        file.write(whole)
    write_json(folder / NAME, listed | {META: then})


def _is_one_of(file: pathlib.Path, allowed: list[Any]) -> bool:
    if not file.exists():
        return False
    sizes = [known[0] for known in allowed if known]
    # The size first: it tells most damage without reading a large file.
    return file.stat().st_size in sizes and list(entry(file)) in [list(k) for k in allowed if k]
