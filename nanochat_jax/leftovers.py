"""What killed programs left on disk: found, measured, removed on request.

Nothing reads any of it: what is written is whole or not there (`files.py`). Runs that were moved
aside are none: those have a rule of their own (`checkpoint/aside.py`).
"""

import dataclasses
import pathlib
import re
import shutil
import time
from collections.abc import Iterator, Sequence
from typing import Literal

from nanochat_jax.config import paths
from nanochat_jax.files import OLD, PART

Kind = Literal["half-written", "replaced", "damaged", "answers of a step that is gone"]
# What was written to in this time may be at work: a large array takes seconds, a download minutes.
YOUNG_S = 3600.0
ANSWERS = re.compile(rf"({'|'.join(paths.CHECKPOINTS)})_(.+)_(\d{{6,}})(\D.*)?")


@dataclasses.dataclass(frozen=True)
class Leftover:
    """`age_s`: seconds since anything in it was written."""

    path: pathlib.Path
    kind: Kind
    size: int
    age_s: float

    @property
    def may_be_at_work(self) -> bool:
        return self.kind == "half-written" and self.age_s < YOUNG_S


def find(root: pathlib.Path, others: Sequence[pathlib.Path] = ()) -> list[Leftover]:
    """Those below a base directory, and of exports in folders elsewhere; the largest first."""
    found = [*_half_done(root), *_damaged(root), *_answers(root)]
    for folder in others:
        found += _half_done(folder)
    made = {path: _measured(path, kind) for path, kind in found}
    return sorted(made.values(), key=lambda left: (-left.size, left.path))


def remove(left: Leftover) -> None:
    """Deletes one."""
    if left.path.is_dir():
        shutil.rmtree(left.path)
    else:
        left.path.unlink(missing_ok=True)


def size_text(size: float) -> str:
    """Bytes for people: `5.2 GB`."""
    for unit in ("bytes", "kB", "MB"):
        if size < 1000:
            return f"{size:.0f} {unit}"
        size /= 1000
    return f"{size:.1f} GB"


def _half_done(folder: pathlib.Path) -> Iterator[tuple[pathlib.Path, Kind]]:
    """Hidden neighbours of files and folders, whose writer or replacer was killed."""
    for path in _hidden(folder):
        # Orbax writes beside our part, under its name and more.
        if PART in path.suffixes[-2:]:
            yield path, "half-written"
        # One whose folder is missing is put back by whoever opens that.
        elif path.suffix == OLD and path.with_name(path.name[1 : -len(OLD)]).exists():
            yield path, "replaced"


def _hidden(folder: pathlib.Path) -> Iterator[pathlib.Path]:
    """Every hidden file or folder, not those inside of one."""
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        if path.name.startswith(".") and path.name != OLD:
            yield path
        elif path.is_dir() and not path.is_symlink():
            yield from _hidden(path)


def _damaged(root: pathlib.Path) -> Iterator[tuple[pathlib.Path, Kind]]:
    for stage in paths.CHECKPOINTS:
        for path in paths.checkpoints(root, stage).glob("*/[0-9]*.damaged*"):
            yield path, "damaged"


def _answers(root: pathlib.Path) -> Iterator[tuple[pathlib.Path, Kind]]:
    for path in paths.answers(root, "").glob("*"):
        if named := ANSWERS.fullmatch(path.name):
            stage, tag, step, _ = named.groups()
            if not (paths.checkpoints(root, stage) / tag / step).exists():
                yield path, "answers of a step that is gone"


def _measured(path: pathlib.Path, kind: Kind) -> Leftover:
    files = [p for p in (path, *path.rglob("*")) if not p.is_dir()]
    stats = [p.lstat() for p in files if p.exists()]
    newest = max((s.st_mtime for s in stats), default=path.lstat().st_mtime)
    return Leftover(path, kind, sum(s.st_size for s in stats), time.time() - newest)
