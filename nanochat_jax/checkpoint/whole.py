"""The last step of a run that is whole: what `--resume` and the speedrun go on from."""

import itertools
import logging
import pathlib

from nanochat_jax import locks
from nanochat_jax.checkpoint import manifest, store
from nanochat_jax.files import recover_folders

log = logging.getLogger(__name__)

DAMAGED = ".damaged"
WAIT_S = 30.0  # for another process that looks at the same damage
# Folders found whole by this process, by their manifests' times: a run asks for its last step
# several times until it begins, and to digest that of a d20 takes seconds.
_known: set[tuple[pathlib.Path, int]] = set()


def set_damaged_aside(directory: pathlib.Path) -> None:
    """Renames the newest steps of a run to `<step>.damaged` until the last one is whole.

    Raises:
        ValueError: not one of its steps is whole (nothing is renamed then), or another run has the
            directory.
    """
    if not directory.is_dir() or not _damaged(directory):
        return
    # Another run's step may have changed while it was read; ours alone do not.
    with locks.held(directory, WAIT_S):
        for folder, what in _damaged(directory).items():
            aside = _free(folder)
            folder.rename(aside)
            log.warning("%s is damaged: %s; it is kept as %s, and the run goes on from the step "
                        "before it", folder, what, aside.name)  # fmt: skip


def verify(saved: store.Saved) -> None:
    """`store.verify`, unless this process has done so."""
    if _key(saved.path) not in _known:
        store.verify(saved)
    elif saved.base is not None:
        verify(saved.base)


def _damaged(directory: pathlib.Path) -> dict[pathlib.Path, str]:
    """The steps after the last whole one, and what of each is damaged."""
    recover_folders(directory)
    found: dict[pathlib.Path, str] = {}
    folders = sorted((p for p in directory.iterdir() if p.name.isdigit()), reverse=True)
    for folder in folders:
        if (what := damage(folder)) is None:
            return found
        found[folder] = what
    if found:
        listed = "; ".join(f"{folder.name}: {what}" for folder, what in found.items())
        raise ValueError(
            f"every checkpoint in {directory} is damaged ({listed}); put one back from a copy, or "
            "begin anew: without --resume, or with --fresh for the speedrun"
        )
    return found


def damage(folder: pathlib.Path) -> str | None:
    """What is wrong with a step's folder; None: it is whole."""
    try:
        name = manifest.first_damaged(folder)
        if name is None and not (folder / manifest.META).exists():
            return f"{manifest.META} is missing"
    except FileNotFoundError:
        return f"{manifest.NAME} is missing"
    except (ValueError, AttributeError, TypeError):
        return f"{manifest.NAME} is damaged"
    if name is None:
        _known.add(_key(folder))
        return None
    return f"{name} is {'missing' if not (folder / name).exists() else 'changed or cut off'}"


def _key(folder: pathlib.Path) -> tuple[pathlib.Path, int]:
    file = folder / manifest.NAME
    return folder.absolute(), file.stat().st_mtime_ns if file.exists() else -1


def _free(folder: pathlib.Path) -> pathlib.Path:
    names = (f"{folder.name}{DAMAGED}{f'-{n}' if n else ''}" for n in itertools.count())
    return next(path for name in names if not (path := folder.with_name(name)).exists())
