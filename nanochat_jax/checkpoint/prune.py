"""Which saved steps of a run go: whole ones, and none that something else stands on."""

import logging
import pathlib
import secrets
import shutil
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from nanochat_jax.checkpoint import manifest, store
from nanochat_jax.checkpoint.adapters import LORA, digest_of
from nanochat_jax.config.paths import CHECKPOINTS
from nanochat_jax.config.saving import Keep, best_first
from nanochat_jax.files import PART

log = logging.getLogger(__name__)

SOURCE = "source"  # the key of `meta.json` that names what a run was born from


def source_of(root: pathlib.Path, saved: store.Saved) -> dict[str, Any]:
    """What a checkpoint says of the step that its run began with: its path, below `root` from
    there, so that it holds where a base directory is moved, and the digest of its weights, for
    other ones may come to lie in that place."""
    path, root = saved.path.resolve(), root.resolve()
    known = path.is_relative_to(root)
    place = path.relative_to(root) if known else path
    return {"path": place.as_posix(), "digest": digest_of(path)}


def prune(directory: pathlib.Path, keep: Keep, root: pathlib.Path, newest: int) -> list[int]:
    """Removes the steps of a run up to `newest` that `keep` does not keep; returns them.

    Never one that a run below `root` was born from; nor one of an import or of a run that was not
    told to prune (before `--keep`, every step was kept).
    """
    steps = [step for step in store.steps(directory) if step <= newest]
    metas = {step: _meta(store.folder(directory, step)) for step in steps}
    scores = {step: meta.get("metrics") or {} for step, meta in metas.items()}
    stay = keep.kept(list(metas), best_first(scores)) | needed(directory, root)
    gone = [step for step, meta in metas.items() if step not in stay and _may_go(meta)]
    for step in gone:
        _remove(store.folder(directory, step))
    if gone:
        log.info("removed %s of %s: not among what --keep keeps", _named(gone), directory)
    return gone


def needed(directory: pathlib.Path, root: pathlib.Path) -> set[int]:
    """The steps in a directory that runs below `root` were born from, or whose adapters stand
    beside: by their weights' digest, wherever they lie by now, and by path, which is all that
    earlier versions told."""
    metas = list(_metas(root))
    sources = [source for meta in metas if (source := meta.get(SOURCE))]
    places = {(root / source["path"]).resolve() for source in sources}
    digests = _bases(metas) | {source["digest"] for source in sources if source.get("digest")}
    folders = {step: store.folder(directory, step) for step in store.steps(directory)}
    return {
        step for step, folder in folders.items()
        if folder.resolve() in places or (digests and digest_of(folder) in digests)
    }  # fmt: skip


def bases(root: pathlib.Path) -> set[str]:
    """Digests of the weights that adapters below a base directory stand beside."""
    return _bases(_metas(root))


def _bases(metas: Iterable[Mapping[str, Any]]) -> set[str]:
    return {meta[LORA]["base"]["digest"] for meta in metas if meta.get(LORA)}


def _metas(root: pathlib.Path) -> Iterator[Mapping[str, Any]]:
    """The meta of every saved step below a base directory, of runs that were moved aside too."""
    for stage in CHECKPOINTS.values():
        for tag in ("*", ".old/*"):
            for file in (root / stage).glob(f"{tag}/[0-9]*/{manifest.META}"):
                yield _meta(file.parent)


def _meta(folder: pathlib.Path) -> Mapping[str, Any]:
    # One that cannot be read says nothing, and is not what a run of now wrote.
    try:
        found = manifest.meta(folder)
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _may_go(meta: Mapping[str, Any]) -> bool:
    return "keep" in (meta.get("config") or {}) and "imported" not in meta


def _remove(path: pathlib.Path) -> None:
    # Renamed first: a step is whole or it does not exist, also while it goes.
    part = path.with_name(f".{path.name}.{secrets.token_hex(4)}{PART}")
    path.rename(part)
    shutil.rmtree(part, ignore_errors=True)


def _named(steps: list[int]) -> str:
    return f"step{'s' * (len(steps) > 1)} {', '.join(map(str, steps))}"
