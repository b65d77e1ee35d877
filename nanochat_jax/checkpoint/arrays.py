"""Trees of arrays on disk, through Orbax: written beside whatever runs on, and read back.

Every array lies in a folder of its own, cut as it lay on the devices, one file a piece, which holds
the piece's bytes and nothing else (zarr, not compressed: weights hardly shrink, and that little
costs more than writing it). So a file's digest is that of the memory it is written from, and nobody
reads it a second time. Orbax's default (OCDBT) packs arrays into few files of its own making; it is
read as before.
"""

import logging
import mmap
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from etils import epath

from nanochat_jax.checkpoint import manifest, plain
from nanochat_jax.checkpoint.mapped import drop_pages

handlers = ocp.type_handlers
# Said at every save, of files that are not meant to be there.
logging.getLogger("absl").addFilter(
    lambda record: "Skipping merge of OCDBT" not in record.getMessage()
)


class Writing:
    """Trees on their way to `<folder>/<name>/...`: what was to be kept is kept once this is made.

    Arrays may be changed, donated or freed from then on: an accelerator's are copied to the host
    here, and a CPU's stay where they are, for XLA gives no buffer to a step that is still read from
    (it takes new memory for the result). Every process of a run makes one, at the same time.
    """

    def __init__(self, folder: pathlib.Path, trees: Mapping[str, Any]):
        self._watched = {name: _Watched() for name in trees}
        # Pinned memory would be filled faster, but is a second copy beside the one that digests are
        # taken from.
        made = {
            name: ocp.PyTreeCheckpointHandler(
                use_ocdbt=False, use_compression=False, enable_pinned_host_transfer=False,
                type_handler_registry=watched.registry(),
            )
            for name, watched in self._watched.items()
        }  # fmt: skip
        self._writer = ocp.AsyncCheckpointer(ocp.CompositeCheckpointHandler(**made))
        items = {name: ocp.args.PyTreeSave(tree) for name, tree in trees.items()}
        self._writer.save(folder.absolute(), ocp.args.Composite(**items))

    def wait(self) -> None:
        """Until every process has written its part, and that lies on the disk; raises its error."""
        self._writer.wait_until_finished()

    def entries(self, folder: pathlib.Path) -> dict[str, manifest.Entry]:
        """The manifest's entries of the pieces that this process wrote, from memory."""
        return {
            f"{item}/{file}": entry
            for item, watched in self._watched.items()
            for file, entry in watched.entries(folder / item)
        }

    def close(self) -> None:
        """Lets go of the arrays."""
        self._writer.close()
        self._watched.clear()


class _Watched:
    """What one tree is written from: pieces of arrays by the file that Orbax gives each."""

    def __init__(self) -> None:
        self.arrays: dict[str, list[tuple[str, np.ndarray]]] = {}
        self.done: dict[str, tuple[str, manifest.Entry]] = {}

    def registry(self) -> Any:
        return handlers.create_type_handler_registry(
            (np.ndarray, _OneByOne(self)),
            (jax.Array, _AsTheyLie(self)),
            *((kind, handlers.ScalarHandler()) for kind in (int, float, np.number)),
        )

    def entries(self, folder: pathlib.Path) -> Iterator[tuple[str, manifest.Entry]]:
        for name, (key, entry) in self.done.items():
            if plain.layout(folder / name):
                yield f"{name}/{key}", entry
        for name, pieces in self.arrays.items():
            if plain.layout(folder / name):
                for key, data in pieces:
                    yield f"{name}/{key}", manifest.entry_of(_bytes(data))


class _AsTheyLie(handlers.ArrayHandler):
    """Arrays of devices, each piece written once, by the process that has its first copy."""

    def __init__(self, watched: _Watched):
        # Written from where they are: to divide copies over devices would slice them anew there.
        super().__init__(use_replica_parallel=False)
        self._watched = watched

    async def serialize(self, values: Any, infos: Any, args: Any = None) -> Any:
        started = await super().serialize(values, infos, args)
        for value, info in zip(values, infos, strict=True):
            own = [s for s in value.addressable_shards if s.replica_id == 0]
            # No copies: JAX keeps the host's copy of an array that Orbax has just asked for.
            self._watched.arrays[info.name] = [(_key(s), np.asarray(s.data)) for s in own]
        return started


class _OneByOne(handlers.NumpyHandler):
    """Arrays of the host, written before `serialize` returns, one after the other.

    They may be views of a mapped file that is larger than the memory: each is let go before the
    next. Orbax would start all writes at once, and each of them then holds its array.
    """

    def __init__(self, watched: _Watched):
        # The copies guard against arrays that change meanwhile; here there is no meanwhile.
        super().__init__(deepcopy_host_arrays=False)
        self._watched = watched

    async def serialize(self, values: Any, infos: Any, args: Any = None) -> Any:
        for value, info, arg in zip(values, infos, args or [None] * len(values), strict=True):
            for future in await super().serialize([value], [info], [arg or ocp.SaveArgs()]):
                future.result()
            key = ".".join("0" * value.ndim) or "0"
            self._watched.done[info.name] = key, manifest.entry_of(_bytes(value))
            _give_back(value)
        return []


def shapes(path: pathlib.Path) -> Any:
    """Shapes and types of a saved tree, to be placed on the first device."""
    device = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    tree = ocp.PyTreeCheckpointHandler().metadata(epath.Path(path.absolute())).tree
    return jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=device), tree)


def restore(path: pathlib.Path, like: Any) -> Any:
    """A saved tree, placed and typed as `like`; None: as `shapes`."""
    # Always with a target: without one Orbax makes lists of tuples, and refuses to restore on
    # another number of processes than saved.
    like = shapes(path) if like is None else like
    if (read := plain.restore(path, like)) is not None:
        return read
    # What is read at a time lies in memory up to three times; Orbax refuses an array that is not
    # below its limit.
    largest = max((a.size * a.dtype.itemsize for a in jax.tree.leaves(like)), default=0)
    with ocp.StandardCheckpointer(restore_concurrent_gb=1.02 * largest / 1e9 + 0.01) as reader:
        return reader.restore(path.absolute(), like)


def _key(shard: Any) -> str:
    """Zarr's name of the file of a piece, by its place among pieces of one shape."""
    sizes = shard.data.shape
    at = ((part.start or 0) // size for part, size in zip(shard.index, sizes, strict=True))
    return ".".join(map(str, at)) or "0"


def _bytes(array: np.ndarray) -> memoryview:
    # A copy only of what does not lie in order.
    return memoryview(np.ascontiguousarray(array).reshape(-1).view(np.uint8))


def _give_back(array: Any) -> None:
    """Lets the pages go that a view of a mapped file was read from."""
    while isinstance(array, np.ndarray) and array.base is not None:
        array = array.base
    mapped = array.obj if isinstance(array, memoryview) else array
    if isinstance(mapped, mmap.mmap):
        drop_pages(mapped)
