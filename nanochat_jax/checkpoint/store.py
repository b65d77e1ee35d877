"""Checkpoints on disk: `<dir>/<step:06d>/` is whole or it does not exist.

Arrays go through Orbax (`params`, `optimizer`), the rest is JSON. The manifest must be there before
the folder gets its name, so the rename is ours too, not Orbax's `CheckpointManager`'s (which also
meets a second save with a silent False).
"""

import contextlib
import dataclasses
import errno
import functools
import json
import pathlib
import shutil
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import orbax.checkpoint as ocp
from jax.sharding import NamedSharding, PartitionSpec

from nanochat_jax.checkpoint import adapters, arrays, manifest
from nanochat_jax.config.gpt import GPTConfig
from nanochat_jax.config.paths import steps as steps
from nanochat_jax.files import PART, replace_folder, sync_folder, write_json
from nanochat_jax.models import lora

MANIFEST = manifest.NAME
BARRIER_MS = 20 * 60_000  # Orbax waits as long for the writes of other processes


@dataclasses.dataclass(frozen=True)
class Saved:
    """One step on disk: `meta` and `loader` are JSON values, arrays are read on demand.

    A step of adapters gives the parameters of the whole model all the same, its base's with these
    merged into them; what reads its base raises as `adapters.base_of`.
    """

    path: pathlib.Path
    meta: dict[str, Any]

    @property
    def step(self) -> int:
        return int(self.path.name)

    @property
    def identity(self) -> dict[str, Any]:
        """What tells this model from every other, as a report shows it.

        Other models may have the same step, and a tag may be given again: the digest tells those.
        """
        return {
            "checkpoint tag": self.path.parent.name, "checkpoint step": self.step,
            "checkpoint digest": adapters.weights_digest(self.path, self.meta),
        }  # fmt: skip

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

    @functools.cached_property
    def base(self) -> "Saved | None":
        """The step that its adapters stand beside; None: it holds whole weights."""
        if adapters.LORA not in self.meta:
            return None
        folder = adapters.base_of(self.path, self.meta)
        return Saved(folder, manifest.meta(folder))

    def param_shapes(self) -> Any:
        """Shapes and types of the parameters, to be placed on the first device."""
        return self.base.param_shapes() if self.base else arrays.shapes(self.path / "params")

    def params(self, like: Any = None) -> Any:
        """The parameters, placed and typed as `like` (ShapeDtypeStructs with shardings)."""
        if self.base is None:
            return arrays.restore(self.path / "params", like)
        params = self.base.params(like)
        places = jax.tree.map(lambda a: a.sharding, params)
        own = self.trained(_beside(self.path, jax.tree.leaves(places)[0]))
        return jax.jit(lora.merged, out_shardings=places, donate_argnums=0)(params, own)

    def unmerged(self) -> Any:
        """The parameters with adapters beside those that they were trained beside."""
        if self.base is None:
            return self.params()
        return lora.attached(self.base.params(), self.trained())

    def trained(self, like: Any = None) -> Any:
        """What the step itself holds, placed as `like`: adapters, or the parameters."""
        return arrays.restore(self.path / "params", like)

    def optimizer(self, like: Any = None) -> Any:
        """The optimizer state, placed and typed as `like`."""
        return arrays.restore(self.path / "optimizer", like)


def save(
    directory: pathlib.Path, step: int, params: Any, meta: Mapping[str, Any], *,
    optimizer: Any = None, loader: Any = None,
) -> pathlib.Path:  # fmt: skip
    """Writes one step and returns its folder; an existing one of that step is replaced.

    Every process of a run must call this; process 0 writes the JSON and renames.

    Raises:
        OSError: the disk is full or not writable; nothing half-written keeps the step's name.
    """
    return begin(directory, step, params, meta, optimizer=optimizer, loader=loader)()


def begin(
    directory: pathlib.Path, step: int, params: Any, meta: Mapping[str, Any], *,
    optimizer: Any = None, loader: Any = None,
) -> Callable[[], pathlib.Path]:  # fmt: skip
    """`save` in two halves: from here on the arrays may change; what is returned does the rest.

    The second half may run in another thread: processes wait for each other there without their
    devices.
    """
    final = folder(directory, step)
    part = final.with_name(f".{final.name}{PART}")  # which every process can compute
    trees = {"params": params} | ({} if optimizer is None else {"optimizer": optimizer})
    with _tidy(directory, part):
        if jax.process_index() == 0:
            directory.mkdir(parents=True, exist_ok=True)
            _clear(part)
        writing = arrays.Writing(part, trees)

    def finish() -> pathlib.Path:
        with _tidy(directory, part), contextlib.closing(writing):
            writing.wait()
            known = _of_all_processes(part, writing.entries(part))
            if jax.process_index() == 0:
                write_json(part / "meta.json", dict(meta) | {"step": step})
                if loader is not None:
                    write_json(part / "loader.json", loader)
                write_json(part / MANIFEST, manifest.entries(part, known))
                sync_folder(part)
                replace_folder(part, final)
        _barrier(f"saved {step}")
        return final

    return finish


def folder(directory: pathlib.Path, step: int) -> pathlib.Path:
    """Where a step lies."""
    return directory / f"{step:06d}"


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
    path = folder(directory, have[-1] if step is None else step)
    file = path / "meta.json"
    try:
        return Saved(path, json.loads(file.read_text("utf-8")))
    except json.JSONDecodeError as error:
        raise ValueError(f"{file} is damaged ({error}); use another step: {have}") from None


def verify(saved: Saved) -> None:
    """Compares every file with its digest; ValueError names the first missing or changed one. Of
    adapters those of their base too."""
    if not (saved.path / MANIFEST).exists():
        raise ValueError(f"{saved.path} has no {MANIFEST}: it is not a checkpoint of this program")
    if name := manifest.first_damaged(saved.path):
        others = [s for s in steps(saved.path.parent) if s != saved.step]
        raise ValueError(
            f"checkpoint {saved.path} is damaged: {name} is missing or changed since it was "
            f"written; use another step ({others or 'there is none'}) or train again"
        )
    if saved.base is not None:
        verify(saved.base)


def _beside(path: pathlib.Path, place: jax.sharding.Sharding) -> Any:
    """Shapes of a step's own arrays, each whole wherever `place` has parts."""
    if isinstance(place, NamedSharding):
        place = NamedSharding(place.mesh, PartitionSpec())
    typed = lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=place)
    return jax.tree.map(typed, arrays.shapes(path / "params"))


@contextlib.contextmanager
def _tidy(directory: pathlib.Path, part: pathlib.Path) -> Iterator[None]:
    """What fails inside leaves nothing behind, and a full disk is called one."""
    try:
        yield
    except Exception as error:
        if jax.process_index() == 0:
            _clear(part)
        _raise_if_full(directory, error)
        raise


def _clear(part: pathlib.Path) -> None:
    # Orbax writes beside it, under this name and more.
    for path in part.parent.glob(f"{part.name}*"):
        shutil.rmtree(path, ignore_errors=True)


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


def _of_all_processes(part: pathlib.Path, own: manifest.Listed) -> manifest.Listed:
    """The entries of all processes in process 0; the others hand over theirs as files."""
    file = lambda process: part / f"entries-{process}.json"
    if jax.process_index():
        write_json(file(jax.process_index()), own)
    _barrier(f"digests of {part.name}")
    if jax.process_index() == 0:
        for process in range(1, jax.process_count()):
            own |= {k: tuple(v) for k, v in json.loads(file(process).read_text("utf-8")).items()}
            file(process).unlink()
    return own


def _barrier(name: str) -> None:
    """All processes come here. Asked of their coordinator: a collective of the devices would get
    between those of the training step."""
    ocp.multihost.get_barrier_sync_fn()(key=f"nanochat {name}", timeout_ms=BARRIER_MS)
