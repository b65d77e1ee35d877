"""Checkpoints on disk: `<dir>/<step:06d>/` is whole or it does not exist.

Arrays go through Orbax (`params`, `optimizer`), the rest is JSON. The manifest must be there before
the folder gets its name, so the rename is ours too, not Orbax's `CheckpointManager`'s (which also
meets a second save with a silent False).
"""

import dataclasses
import errno
import json
import mmap
import pathlib
import shutil
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from jax.experimental import multihost_utils

from nanochat_jax.checkpoint import manifest
from nanochat_jax.checkpoint.mapped import drop_pages
from nanochat_jax.config.gpt import GPTConfig
from nanochat_jax.files import recover_folders, replace_folder, write_json

MANIFEST = manifest.NAME


@dataclasses.dataclass(frozen=True)
class Saved:
    """One step on disk: `meta` and `loader` are JSON values, arrays are read on demand."""

    path: pathlib.Path
    meta: dict[str, Any]

    @property
    def step(self) -> int:
        return int(self.path.name)

    @property
    def cfg(self) -> GPTConfig:
        return GPTConfig.of(self.meta["model_config"])

    @property
    def loader(self) -> Any:
        """The data loader's position, None where the checkpoint has none."""
        file = self.path / "loader.json"
        return json.loads(file.read_text("utf-8")) if file.exists() else None

    @property
    def has_optimizer(self) -> bool:
        return (self.path / "optimizer").is_dir()

    def param_shapes(self) -> Any:
        """Shapes and types of the parameters, to be placed on the first device."""
        return _shapes(self.path / "params")

    def params(self, like: Any = None) -> Any:
        """The parameters, placed and typed as `like` (ShapeDtypeStructs with shardings)."""
        return _restore(self.path / "params", like)

    def optimizer(self, like: Any = None) -> Any:
        """The optimizer state, placed and typed as `like`."""
        return _restore(self.path / "optimizer", like)


def save(
    directory: pathlib.Path, step: int, params: Any, meta: Mapping[str, Any], *,
    optimizer: Any = None, loader: Any = None,
) -> pathlib.Path:  # fmt: skip
    """Writes one step and returns its folder; an existing one of that step is replaced.

    Every process of a run must call this; process 0 writes the JSON and renames. OSError: the disk
    is full or not writable; nothing half-written keeps the step's name.
    """
    # A name that every process can compute: all of them write below it.
    final, part = directory / f"{step:06d}", directory / f".{step:06d}.part"
    if chief := jax.process_index() == 0:
        directory.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir()
    _barrier(f"made {step}")
    try:
        for name, tree in (("params", params), ("optimizer", optimizer)):
            if tree is not None:
                _write(part.absolute() / name, tree)
        if chief:
            write_json(part / "meta.json", dict(meta) | {"step": step})
            if loader is not None:
                write_json(part / "loader.json", loader)
            write_json(part / MANIFEST, manifest.entries(part))
            replace_folder(part, final)
    except Exception as error:
        if chief:
            shutil.rmtree(part, ignore_errors=True)
        _raise_if_full(directory, error)
        raise
    _barrier(f"saved {step}")
    return final


def steps(directory: pathlib.Path) -> list[int]:
    """The steps saved in a checkpoint directory, ascending."""
    if not directory.is_dir():
        return []
    recover_folders(directory)  # of a step that was saved again, and killed at the wrong moment
    found = (p for p in directory.iterdir() if p.name.isdigit() and (p / "meta.json").exists())
    return sorted(int(p.name) for p in found)


def find(directory: pathlib.Path, step: int | None = None) -> Saved:
    """The saved step (None: the last), or the last if `directory` is itself a step's folder.

    Raises:
        FileNotFoundError: there is none; the message lists what there is.
        ValueError: its `meta.json` is damaged.
    """
    if directory.name.isdigit() and (directory / "meta.json").exists() and step is None:
        directory, step = directory.parent, int(directory.name)
    have = steps(directory)
    if not have or (step is not None and step not in have):
        what = f"no checkpoint of step {step}" if step is not None else "no checkpoint"
        there = ", ".join(map(str, have)) or "none"
        raise FileNotFoundError(f"{what} in {directory}; steps found: {there}")
    path = directory / f"{have[-1] if step is None else step:06d}"
    file = path / "meta.json"
    try:
        return Saved(path, json.loads(file.read_text("utf-8")))
    except json.JSONDecodeError as error:
        raise ValueError(f"{file} is damaged ({error}); use another step: {have}") from None


def verify(saved: Saved) -> None:
    """Compares every file with its digest; ValueError names the first missing or changed one."""
    if not (saved.path / MANIFEST).exists():
        raise ValueError(f"{saved.path} has no {MANIFEST}: it is not a checkpoint of this program")
    if name := manifest.first_damaged(saved.path):
        others = [s for s in steps(saved.path.parent) if s != saved.step]
        raise ValueError(
            f"checkpoint {saved.path} is damaged: {name} is missing or changed since it was "
            f"written; use another step ({others or 'there is none'}) or train again"
        )


def _raise_if_full(directory: pathlib.Path, error: Exception) -> None:
    """Raises OSError if what went wrong is that the disk is full.

    Orbax writes through TensorStore, whose errors are of no type of their own: a full disk is known
    by their text, or by looking.
    """
    free = shutil.disk_usage(directory).free
    if free < 64 * 2**20 or "No space left" in str(error) or "RESOURCE_EXHAUSTED" in str(error):
        message = (f"disk full ({free / 1e6:.0f} MB left): checkpoint not saved, earlier ones are "
                   "untouched; make room, then go on with --resume")  # fmt: skip
        raise OSError(errno.ENOSPC, message, str(directory)) from error


class _OneByOne(ocp.type_handlers.NumpyHandler):
    """Writes numpy arrays one after the other: views of mapped files never all lie in memory.

    Orbax starts all writes at once, and each of them then holds its array. Nothing public limits
    that, so this overrides a method with an underscore (Orbax 0.12.8); an import of 2 GB would need
    its size in memory without.
    """

    def __init__(self):
        # The copies guard against arrays that change meanwhile; views of a file do not.
        super().__init__(deepcopy_host_arrays=False)

    async def _background_serialize(self, values, infos, args=None):
        for value, info, arg in zip(values, infos, args, strict=True):
            await super()._background_serialize([value], [info], [arg])
            _give_back(value)


def _give_back(array: Any) -> None:
    """Lets the pages go that a view of a mapped file was read from."""
    while isinstance(array, np.ndarray) and array.base is not None:
        array = array.base
    mapped = array.obj if isinstance(array, memoryview) else array
    if isinstance(mapped, mmap.mmap):
        drop_pages(mapped)


def _write(path: pathlib.Path, tree: Any) -> None:
    """One item, uncompressed: weights hardly shrink, and that little costs more than writing it."""
    handlers = ocp.type_handlers
    registry = handlers.create_type_handler_registry(
        (np.ndarray, _OneByOne()),
        (jax.Array, handlers.ArrayHandler()),
        *((kind, handlers.ScalarHandler()) for kind in (int, float, np.number)),
    )
    handler = ocp.PyTreeCheckpointHandler(type_handler_registry=registry, use_compression=False)
    with ocp.Checkpointer(handler) as writer:
        writer.save(path, tree)


def _shapes(path: pathlib.Path) -> Any:
    device = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    with ocp.StandardCheckpointer() as reader:
        tree = reader.metadata(path.absolute()).item_metadata.tree
    return jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=device), tree)


def _restore(path: pathlib.Path, like: Any) -> Any:
    # Always with a target: without one Orbax makes lists of tuples, and refuses to restore on
    # another number of processes than saved.
    like = _shapes(path) if like is None else like
    # What is read at a time lies in memory twice; Orbax refuses an array beyond its limit.
    largest = max((a.size * a.dtype.itemsize for a in jax.tree.leaves(like)), default=0)
    with ocp.StandardCheckpointer(restore_concurrent_gb=1.25 * largest / 1e9 + 0.05) as reader:
        return reader.restore(path.absolute(), like)


def _barrier(name: str) -> None:
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(name)
