"""Runs that were moved aside for new ones: whole, listed, brought back, pruned by one rule.

A run of `base_checkpoints/d4` goes to `base_checkpoints/.old/d4-<n>`, unharmed: it may have taken
days, and a flag typed wrongly begins a new one. Steps of a run's later future, when it goes on from
an earlier step, go there too. The rule: of each run the newest `KEEP` that were moved aside stay,
and those that were finished stay until they are asked away (`scripts.checkpoints prune
--finished`), and so do those whose weights adapters (LoRA) stand beside. One that was stopped
before its first save takes no other's place.
"""

import collections
import contextlib
import dataclasses
import hashlib
import json
import pathlib
import re
import shutil
import time
from collections.abc import Iterator

from nanochat_jax import locks
from nanochat_jax.checkpoint import manifest, store
from nanochat_jax.checkpoint.adapters import digest_of
from nanochat_jax.checkpoint.prune import bases
from nanochat_jax.config import paths
from nanochat_jax.config.errors import nearest
from nanochat_jax.files import OLD, write_json

KEEP = 3
RECORD = "aside.json"
METRICS = "metrics.jsonl"
NAMED = re.compile(r".+-\d+")  # another folder in `.old` was put there by hand


@dataclasses.dataclass(frozen=True)
class Aside:
    """What lies in a `.old` folder.

    Args:
        after: these are steps later than this one, of a run that went on from it; None: a run.
        when: Unix time when it was moved.
        origin: which step `after` was, as `_identity` tells; None: of an earlier version.
    """

    path: pathlib.Path
    after: int | None
    when: float
    origin: str | None = None

    @property
    def stage(self) -> str:
        folders = {folder: stage for stage, folder in paths.CHECKPOINTS.items()}
        return folders[self.path.parents[1].name]

    @property
    def home(self) -> pathlib.Path:
        """Where it lay."""
        return self.path.parents[1] / self.path.name.rpartition("-")[0]

    @property
    def name(self) -> str:
        """How people call it: `base/d4-1`."""
        return f"{self.stage}/{self.path.name}"

    @property
    def steps(self) -> list[int]:
        return store.steps(self.path)

    @property
    def finished(self) -> bool:
        """Whether the run had come to its end."""
        with contextlib.suppress(FileNotFoundError, ValueError):
            return bool(store.find(self.path).meta.get("final"))
        return False

    def holds(self, digests: set[str]) -> bool:
        """Whether the weights of one of its steps have one of these digests."""
        return any(digest_of(store.folder(self.path, n)) in digests for n in self.steps)

    @property
    def back(self) -> str:
        """What brings it back."""
        return f"python -m scripts.checkpoints restore {self.name}"


def move(folder: pathlib.Path) -> Aside | None:
    """Makes room for a new run: the one in `folder`, if there is one, goes to `.old`."""
    if not folder.exists():
        return None
    aside = _free(folder)
    folder.rename(aside)
    return _recorded(aside)


def move_later(folder: pathlib.Path, step: int) -> Aside | None:
    """Steps after the one that a run goes on from are another's future: they go to `.old` too.

    Left there, they would be what the next `--resume` finds, and what counts as newest.
    """
    later = [n for n in store.steps(folder) if n > step]
    if not later:
        return None
    aside = _free(folder)
    aside.mkdir()
    if (folder / METRICS).exists():  # the run is about to write the lines of these steps anew
        shutil.copy2(folder / METRICS, aside / METRICS)
    for n in later:
        store.folder(folder, n).rename(store.folder(aside, n))
    return _recorded(aside, step, _identity(folder, step))


def found(root: pathlib.Path, since: float = 0.0) -> list[Aside]:
    """What was moved aside below a base directory since a time (Unix's), the newest first."""
    each = (paths.checkpoints(root, stage) / OLD for stage in paths.CHECKPOINTS)
    folders = (path for old in each if old.is_dir() for path in old.iterdir() if path.is_dir())
    known = (_read(path) for path in folders if NAMED.fullmatch(path.name))
    known = (a for a in known if a.when >= since)
    return sorted(known, key=lambda a: (-a.when, a.name))


def named(root: pathlib.Path, name: str) -> Aside:
    """The one of that name; raises ValueError where there is none."""
    known = {a.name: a for a in found(root)}
    if name not in known:
        raise ValueError(
            f"nothing that was moved aside is called {name!r}"
            + (nearest(name, list(known)) if known else "; there is nothing")
        )
    return known[name]


def restore(aside: Aside) -> Aside | None:
    """Brings one back; what lies in its place is moved aside, and returned.

    Raises:
        ValueError: a run is at work there, or these are later steps of another run than that.
    """
    home = aside.home
    with locks.held(home):
        if aside.after is None:
            moved = move(home)
            aside.path.rename(home)
            (home / RECORD).unlink(missing_ok=True)
            return moved
        _check_origin(aside)
        home.mkdir(exist_ok=True)
        moved = move_later(home, aside.after)
        for n in aside.steps:
            store.folder(aside.path, n).rename(store.folder(home, n))
        if (aside.path / METRICS).exists():
            (aside.path / METRICS).replace(home / METRICS)
        shutil.rmtree(aside.path)
        return moved


def prunable(root: pathlib.Path, *, finished: bool = False) -> list[Aside]:
    """Those that the rule lets go; `finished`: of those that had ended too. None that adapters
    stand beside."""
    seen: collections.Counter[tuple[pathlib.Path, bool]] = collections.Counter()
    gone, needed = [], bases(root)
    for aside in found(root):
        # Who begins a run again and again before its first step loses none that has steps.
        kind = aside.home, bool(aside.steps)
        seen[kind] += 1
        if seen[kind] > KEEP and (finished or not aside.finished) and not aside.holds(needed):
            gone.append(aside)
    return gone


def prune(root: pathlib.Path, *, finished: bool = False) -> list[Aside]:
    """Removes and returns them."""
    gone = prunable(root, finished=finished)
    for aside in gone:
        shutil.rmtree(aside.path)
    return gone


def _check_origin(aside: Aside) -> None:
    """Raises ValueError where later steps would come to lie among the earlier ones of another run:
    one that was begun anew under the name."""
    home, after = aside.home, aside.after
    earlier = [n for n in store.steps(home) if n <= after]
    if not earlier or aside.origin is None or _is_at(aside, home):
        return
    theirs = next((a for a in found(home.parents[1]) if a.home == home and _is_at(aside, a.path)),
                  None)  # fmt: skip
    what = (
        f"bring that one back first ({theirs.back}), then this"
        if theirs
        else f"move {home} to another name first, then these come back by themselves"
    )
    raise ValueError(
        f"{aside.name} holds what came after step {after} of a run that is not the one in {home} "
        f"now (steps {', '.join(map(str, earlier))} there are another's); {what}"
    )


def _is_at(aside: Aside, folder: pathlib.Path) -> bool:
    """Whether the step that later ones came after is in this folder."""
    return bool(aside.origin) and _identity(folder, aside.after) == aside.origin


def _identity(folder: pathlib.Path, step: int) -> str:
    """A digest of a step's files; empty where it is gone. Without `meta.json`: evaluations write
    their scores there when a run goes on."""
    with contextlib.suppress(FileNotFoundError):
        listed = json.loads((store.folder(folder, step) / manifest.NAME).read_text("utf-8"))
        kept = {k: v for k, v in listed.items() if k not in (manifest.META, manifest.NEXT)}
        return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()
    return ""


def _free(folder: pathlib.Path) -> pathlib.Path:
    """The next name in `.old` beside a run, whose parent exists."""
    old = folder.parent / OLD
    old.mkdir(exist_ok=True)
    return old / f"{folder.name}-{max(_numbers(old, folder.name), default=0) + 1}"


def _numbers(old: pathlib.Path, tag: str) -> Iterator[int]:
    for path in old.iterdir():
        name, _, number = path.name.rpartition("-")
        if name == tag and number.isdecimal():
            yield int(number)


def _recorded(path: pathlib.Path, after: int | None = None, origin: str | None = None) -> Aside:
    write_json(path / RECORD, {"after": after, "when": time.time(), "origin": origin})
    return _read(path)


def _read(path: pathlib.Path) -> Aside:
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        kept = json.loads((path / RECORD).read_text("utf-8"))
        return Aside(path, kept["after"], float(kept["when"]), kept.get("origin"))
    # Moved by an earlier version, or killed in the middle: a run has its metrics with it.
    steps = store.steps(path)
    is_run = (path / METRICS).exists() or not steps
    return Aside(path, None if is_run else steps[0] - 1, path.stat().st_mtime)
