"""Whole or not at all: how every file and folder of the package is written.

A writer works on a neighbour of the target, `.<name>.<random>.part`, syncs it, and renames it into
place. After a crash at any point the target is what it was, or what it was to become; what is left
besides is a hidden `.part`, which nothing reads. For a folder, which takes two renames, whoever
opens it calls `recover_folder` first.
"""

import contextlib
import errno
import json
import os
import pathlib
import secrets
import shutil
from collections.abc import Iterable, Iterator
from typing import IO, Any

PART, OLD = ".part", ".old"
DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@contextlib.contextmanager
def whole_file(path: pathlib.Path, mode: str = "wb", **options: Any) -> Iterator[IO[Any]]:
    """A file open for writing that stands at `path` when the block ends without an error.

    Args:
        mode, options: as for `open`; text is UTF-8.

    Raises:
        OSError: the disk is full or not writable; what stood at `path` is untouched.
    """
    if "b" not in mode:
        options = {"encoding": "utf-8", **options}
    path.parent.mkdir(parents=True, exist_ok=True)
    part = _neighbor(path)
    try:
        # "x": a name that nobody has. Not `tempfile`, whose files only their owner may read: a
        # served checkpoint or a shared data folder belongs to more people than wrote it.
        with part.open(mode.replace("w", "x"), **options) as file:
            yield file
            file.flush()
            # A rename can reach the disk before the data do; the name would then hold zeros.
            os.fsync(file.fileno())
        part.replace(path)
        _sync(path.parent)
    except OSError as error:
        if error.errno in DISK_FULL:  # a write knows no name, and the neighbour's says nothing
            error.filename = str(path)
        raise
    finally:
        part.unlink(missing_ok=True)


def write_text(path: pathlib.Path, text: str) -> None:
    """Writes text as UTF-8; half a character, which a model can write, becomes `?`."""
    with whole_file(path, "w", errors="replace") as file:
        file.write(text)


def write_json(path: pathlib.Path, value: Any) -> None:
    """Writes one JSON value, indented for people; half a character becomes `?` as above."""
    write_text(path, json_text(value))


def json_text(value: Any) -> str:
    """The text of a file of one JSON value; half a character is `?` in it already."""
    text = json.dumps(value, indent=1, ensure_ascii=False)
    return text.encode(errors="replace").decode()


def write_json_lines(path: pathlib.Path, values: Iterable[Any]) -> None:
    """Writes JSON values, one a line; half a character becomes `?` as above."""
    with whole_file(path, "w", errors="replace") as file:
        file.writelines(json.dumps(value, ensure_ascii=False) + "\n" for value in values)


def read_json_lines(path: pathlib.Path) -> list[Any]:
    """The values of a file that is appended to, up to a line that a kill cut off; [] without it."""
    values: list[Any] = []
    # Bytes, since a cut may go through a character; and no `splitlines`, since a text may hold
    # other line ends, such as U+2028.
    for line in path.read_bytes().split(b"\n") if path.exists() else []:
        try:
            values.append(json.loads(line))
        except ValueError:
            break
    return values


@contextlib.contextmanager
def whole_folder(path: pathlib.Path) -> Iterator[pathlib.Path]:
    """An empty folder to fill, which replaces `path` when the block ends without an error."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = _neighbor(path)
    part.mkdir()
    try:
        yield part
        sync_folder(part)
        replace_folder(part, path)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def sync_folder(path: pathlib.Path) -> None:
    """Hands all that is in a folder to the disk: its rename must not outrun its data."""
    for inside in (path, *path.rglob("*")):
        _sync(inside)


def replace_folder(part: pathlib.Path, path: pathlib.Path) -> None:
    """Renames a finished folder into place; one that has the name goes once that is done.

    POSIX replaces a folder by rename only if it is empty, so this takes two renames. A process
    killed between them leaves the old folder whole as `.<name>.old`: see `recover_folder`.
    """
    old, placed = _old(path), False
    while not placed:
        if path.exists():
            shutil.rmtree(old, ignore_errors=True)
            path.rename(old)
        try:
            part.rename(path)
            placed = True
        except OSError as error:
            # A reader that came between the renames took this process for a killed one, and has
            # put the old folder back: move it aside again.
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                recover_folder(path)
                raise
    _sync(path.parent)
    shutil.rmtree(old, ignore_errors=True)


def recover_folder(path: pathlib.Path) -> None:
    """Puts back what `replace_folder` had moved aside when it was killed; else does nothing."""
    # That there is no `.old` is the normal case; and who may not rename has found no folder.
    with contextlib.suppress(OSError):
        if not path.exists():
            _old(path).rename(path)


def recover_folders(parent: pathlib.Path) -> None:
    """`recover_folder` of every folder that was below `parent`."""
    for old in parent.glob(f".*{OLD}"):
        recover_folder(parent / old.name[1 : -len(OLD)])


def _sync(path: pathlib.Path) -> None:
    """Hands a file's data, or the names in a folder, to the disk itself."""
    if os.name == "nt" and path.is_dir():  # no handle of a folder there
        return
    number = os.open(path, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)


def _neighbor(path: pathlib.Path) -> pathlib.Path:
    """A free hidden name on the same disk, since a rename does not cross disks."""
    return path.with_name(f".{path.name}.{secrets.token_hex(4)}{PART}")


def _old(path: pathlib.Path) -> pathlib.Path:
    return path.with_name(f".{path.name}{OLD}")
