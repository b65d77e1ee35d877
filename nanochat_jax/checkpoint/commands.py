"""The commands of `scripts.checkpoints`: each prints what it found or did."""

import contextlib
import datetime
import pathlib
from collections.abc import Iterator

from nanochat_jax import leftovers
from nanochat_jax.checkpoint import aside, store
from nanochat_jax.checkpoint.adapters import LORA
from nanochat_jax.checkpoint.aside import Aside
from nanochat_jax.config import paths
from nanochat_jax.config.checkpoints import ListRuns, Prune, Restore


def run(command: ListRuns | Restore | Prune) -> int:
    """Runs one command and returns the exit code."""
    root = paths.base_dir()
    if isinstance(command, ListRuns):
        return _list(root)
    return _restore(root, command) if isinstance(command, Restore) else _prune(root, command)


def _list(root: pathlib.Path) -> int:
    print(f"in {root}:")
    for stage, folder in _runs(root):
        print(f"  {stage + '/' + folder.name:<16} {_about(folder)}")
    if not list(_runs(root)):
        print("  no run yet; make one: python -m scripts.speedrun")
    if away := aside.found(root):
        print(f"moved aside for newer ones (the newest {aside.KEEP} of each stay, finished ones "
              "until `prune --finished`):")  # fmt: skip
        for each in away:
            print(f"  {each.name:<16} {_about(each.path)}, {_day(each)}{_what(each)}")
            print(f"  {'':<16} back with: {each.back}")
    return 0


def _restore(root: pathlib.Path, command: Restore) -> int:
    back = aside.named(root, command.name)
    moved = aside.restore(back)
    print(f"{back.name} is back in {back.home}{_what(back)}")
    if moved is not None:
        print(f"what was there is now {moved.name}; back with: {moved.back}")
    return 0


def _prune(root: pathlib.Path, command: Prune) -> int:
    gone = aside.prunable(root, finished=command.finished)
    for each in gone:
        print(f"  {each.name:<16} {_about(each.path)}, {_day(each)}")
    if command.yes:
        aside.prune(root, finished=command.finished)
    done = "removed" if command.yes else "to remove (nothing was; type --yes)"
    print(f"{len(gone)} {done}; {len(aside.found(root)) - len(gone) * (not command.yes)} stay")
    return 0


def _runs(root: pathlib.Path) -> Iterator[tuple[str, pathlib.Path]]:
    for stage in paths.CHECKPOINTS:
        folder = paths.checkpoints(root, stage)
        for run in sorted(folder.iterdir()) if folder.is_dir() else ():
            if run.is_dir() and not run.name.startswith("."):
                yield stage, run


def _about(folder: pathlib.Path) -> str:
    """A run's steps, whether it is finished, and its size."""
    steps = store.steps(folder)
    if not steps:
        return "no step"
    shown = ", ".join(map(str, steps[-4:]))
    ended = Aside(folder, None, 0.0).finished
    size = sum(p.stat().st_size for p in folder.rglob("*") if p.is_file())
    return (
        f"step{'s' * (len(steps) > 1)} {'..., ' * (len(steps) > 4)}{shown}, "
        f"{'finished' if ended else 'not finished'}, {leftovers.size_text(size)}"
        f"{_beside(folder)}"
    )


def _beside(folder: pathlib.Path) -> str:
    """What adapters stand beside; empty of whole weights."""
    with contextlib.suppress(FileNotFoundError, ValueError):
        meta = store.find(folder).meta
        return f", adapters beside {meta[LORA]['base']['path']}" if LORA in meta else ""
    return ""


def _day(each: Aside) -> str:
    return f"moved {datetime.datetime.fromtimestamp(each.when):%Y-%m-%d %H:%M}"


def _what(each: Aside) -> str:
    return "" if each.after is None else f" (its steps after {each.after})"
