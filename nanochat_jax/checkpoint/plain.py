"""Arrays of our own files, read straight to where they will lie.

Orbax reads a whole piece for every part of it that a device wants, and has it in memory three times
meanwhile: 1.38 times a d20's state in all. This needs one array beside what is restored.
"""

import functools
import itertools
import json
import math
import mmap
import pathlib
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from nanochat_jax.checkpoint.mapped import drop_pages

# Zarr's words for files that hold the bytes of their pieces as they are.
LAYOUT = {"compressor": None, "filters": None, "order": "C", "dimension_separator": "."}


def layout(folder: pathlib.Path) -> Mapping[str, Any] | None:
    """What `.zarray` says of an array's files; None where they are not its bytes alone."""
    file = folder / ".zarray"
    found = json.loads(file.read_text("utf-8")) if file.exists() else {}
    return found if all(found.get(key, ...) == value for key, value in LAYOUT.items()) else None


def restore(path: pathlib.Path, like: Any) -> Any | None:
    """A saved tree of dicts, placed and typed as `like`; None where its files are of another kind
    or its arrays of other shapes."""
    leaves, tree = jax.tree_util.tree_flatten_with_path(like)
    folders = [path / ".".join(str(getattr(key, "key", key)) for key in keys) for keys, _ in leaves]
    layouts = [layout(folder) for folder in folders]
    for (_, leaf), found in zip(leaves, layouts, strict=True):
        if found is None or tuple(found["shape"]) != leaf.shape or not leaf.size:
            return None
    read = zip(folders, layouts, leaves, strict=True)
    return tree.unflatten([_array(folder, found, leaf) for folder, found, (_, leaf) in read])


def _array(folder: pathlib.Path, found: Mapping[str, Any], like: Any) -> jax.Array:
    @functools.cache  # devices that keep the same part get one reading of it
    def part(*bounds: tuple[int, int]) -> np.ndarray:
        return _part(folder, found, bounds).astype(like.dtype, copy=False)

    def of(index: tuple[slice, ...]) -> np.ndarray:
        return part(*(s.indices(n)[:2] for s, n in zip(index, like.shape, strict=True)))

    # One at a time, or all that was read would wait in memory to be placed.
    return jax.block_until_ready(jax.make_array_from_callback(like.shape, like.sharding, of))


def _part(
    folder: pathlib.Path, found: Mapping[str, Any], bounds: tuple[tuple[int, int], ...]
) -> np.ndarray:
    """The part of an array within `bounds` (first, end) of each axis, from the pieces it is in."""
    dtype, sizes = jnp.dtype(found["dtype"]), tuple(found["chunks"])
    out = np.empty([end - first for first, end in bounds], dtype)
    spans = [range(a // n, -(-b // n)) for (a, b), n in zip(bounds, sizes, strict=True)]
    for place in itertools.product(*spans):
        cut = [(max(a, k * n), min(b, (k + 1) * n), a, k * n)
               for (a, b), k, n in zip(bounds, place, sizes, strict=True)]  # fmt: skip
        into = tuple(slice(low - a, high - a) for low, high, a, _ in cut)
        from_ = tuple(slice(low - begin, high - begin) for low, high, _, begin in cut)
        with (folder / (".".join(map(str, place)) or "0")).open("rb") as file:
            mapped = mmap.mmap(
                file.fileno(), math.prod(sizes) * dtype.itemsize, prot=mmap.PROT_READ
            )
            out[into] = np.frombuffer(mapped, dtype).reshape(sizes)[from_]
            drop_pages(mapped)
    return out
