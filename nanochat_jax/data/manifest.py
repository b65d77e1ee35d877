"""What the shards of a folder were when they came: size and SHA-256 of each, in `manifest.json`.

Digests are taken where the bytes pass by anyway (download, import); `scripts.data verify --write`
adds those of files dropped in by hand. Nothing depends on there being a manifest.
"""

import concurrent.futures
import contextlib
import dataclasses
import hashlib
import json
import logging
import pathlib
import threading
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from nanochat_jax import locks
from nanochat_jax.files import write_json

log = logging.getLogger(__name__)

NAME = "manifest.json"
# Shards without a digest are read at the start of a run only where they are so few: a core hashes
# about a gigabyte a second, and the text of a d20 is 24 of them.
QUICK_BYTES = 2 * 2**30
READERS = 4  # files hashed at a time: hashlib lets go of Python's lock
_WRITING = threading.Lock()  # downloads come in several threads
PATIENCE_S = 60.0  # with another process that writes a manifest


@dataclasses.dataclass(frozen=True)
class Entry:
    """A shard as it was recorded. A file of that size and time is taken for that one, unread.

    `source` is the recipe whose text was downloaded; empty where the shard came in another way.
    """

    bytes: int
    sha256: str
    mtime_ns: int
    source: str = ""

    @classmethod
    def of(cls, path: pathlib.Path, sha256: str, source: str) -> "Entry":
        stat = path.stat()
        return cls(stat.st_size, sha256, stat.st_mtime_ns, source)

    def as_json(self) -> dict[str, Any]:
        return {key: value for key, value in vars(self).items() if value != ""}


def read(folder: pathlib.Path) -> dict[str, Entry]:
    """The entries by file name; none without a manifest. Raises ValueError for a damaged one."""
    path = folder / NAME
    try:
        entries = json.loads(path.read_text("utf-8")) if path.exists() else {}
        return {name: Entry(**entry) for name, entry in entries.items()}
    except (ValueError, TypeError, AttributeError) as error:
        raise ValueError(
            f"{path} is damaged ({error}); delete it, and let `python -m scripts.data verify "
            "--write` make another"
        ) from None


def record(folder: pathlib.Path, digests: Mapping[str, str], source: str = "") -> None:
    """Writes the digests of some files (name -> SHA-256) of a folder into its manifest.

    Without `source` that of a file that is listed already stays.
    """
    if not digests:
        return
    with _alone(folder):
        entries = read(folder)
        for name, digest in digests.items():
            known = entries[name].source if name in entries else ""
            entries[name] = Entry.of(folder / name, digest, source or known)
        _write(folder, entries)


def forget(folder: pathlib.Path, name: str) -> None:
    """Takes a file that is about to be written anew out of its folder's manifest."""
    if name not in read(folder):
        return
    with _alone(folder):
        entries = read(folder)
        entries.pop(name, None)
        _write(folder, entries)


@contextlib.contextmanager
def _alone(folder: pathlib.Path) -> Iterator[None]:
    """What is read and written anew inside is nobody else's meanwhile."""
    with _WRITING, locks.held(folder / NAME, PATIENCE_S):
        yield


def _write(folder: pathlib.Path, entries: Mapping[str, Entry]) -> None:
    listed = sorted(entries.items())
    write_json(folder / NAME, {name: entry.as_json() for name, entry in listed})


def sha256(path: pathlib.Path) -> str:
    """The digest of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digests(paths: Sequence[pathlib.Path]) -> dict[str, str]:
    """File name -> SHA-256, several files read at a time."""
    with concurrent.futures.ThreadPoolExecutor(READERS) as pool:
        return dict(zip([path.name for path in paths], pool.map(sha256, paths), strict=True))


def check(path: pathlib.Path, entry: Entry, digest: str | None = None) -> None:
    """Raises ValueError unless the file has the entry's size and, where it is given, its digest."""
    size = path.stat().st_size
    now, then = f"{size:,} bytes", f"{entry.bytes:,}"
    if size == entry.bytes and digest is not None:
        now, then = f"sha256 {digest[:12]}", entry.sha256[:12]
    if size != entry.bytes or digest not in (None, entry.sha256):
        raise ValueError(
            f"{path} is not what it was when it came: {now}, {path.parent / NAME} says {then}; "
            "delete the shard and get it again (`python -m scripts.data download`), or, if the "
            f"change was meant, delete {NAME} (`python -m scripts.data verify` checks all shards)"
        )


def identify(paths: Sequence[pathlib.Path], wanted: Collection[str] = ()) -> dict[str, str]:
    """What the shards of one folder are: file name -> `sha256:...`, or `bytes:...` where the
    manifest knows no digest and they are too large to be read now.

    A file whose size and time are the manifest's is not read.

    Args:
        wanted: names whose digest is needed, however long that takes.

    Raises:
        ValueError: a shard that is not what the manifest says.
    """
    folder, sizes = paths[0].parent, {path.name: path.stat().st_size for path in paths}
    entries = read(folder)
    for path in paths:
        if path.name in entries:
            check(path, entries[path.name])
    known = {p.name: e.sha256 for p in paths if (e := entries.get(p.name)) and _untouched(p, e)}
    unread = [path for path in paths if path.name not in known]
    optional = [p for p in unread if p.name not in entries and p.name not in wanted]
    if sum(sizes[path.name] for path in optional) > QUICK_BYTES:
        log.info(
            "%d shards have no digest and are told apart by their sizes alone; to have them "
            "checked type python -m scripts.data verify --write", len(optional),
        )  # fmt: skip
        unread = [path for path in unread if path not in optional]
    if any(path.name in entries for path in unread):
        log.info("reading %d shards that have another date than their digests", len(unread))
    read_now = digests(unread)
    for path in unread:
        if path.name in entries:
            check(path, entries[path.name], read_now[path.name])
    with contextlib.suppress(OSError):  # a folder that others own is read all the same
        record(folder, read_now)
    known |= read_now
    return {n: f"sha256:{known[n]}" if n in known else f"bytes:{size}" for n, size in sizes.items()}


def _untouched(path: pathlib.Path, entry: Entry) -> bool:
    return path.stat().st_mtime_ns == entry.mtime_ns
