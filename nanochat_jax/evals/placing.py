"""Where a model and its rows lie while it is scored, and how many of them at once."""

import collections
import dataclasses
from collections.abc import Iterable, Iterator
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from nanochat_jax import sharding
from nanochat_jax.models.gpt import Model

# The original's rotary tables are this many contexts long; a longer prompt stops it.
CONTEXTS = 10
CPU_TOKENS, ACCELERATOR_TOKENS = 2048, 16384  # of a forward pass on each device


def longest(model: Model) -> int:
    """Tokens of the longest row that is read whole; of a longer one the last so many."""
    return CONTEXTS * model.cfg.sequence_len


def batch_tokens() -> int:
    """Tokens of a forward pass that suit a device."""
    return CPU_TOKENS if jax.default_backend() == "cpu" else ACCELERATOR_TOKENS


def few_shapes() -> bool:
    """Whether padding costs this backend less than a compilation does."""
    return jax.default_backend() != "cpu"


def mesh_of(model: Model) -> Mesh | None:
    """The mesh that holds the parameters, if it has several devices."""
    leaf = jax.tree.leaves(model.params)[0]
    if not isinstance(leaf, jax.Array) or not isinstance(leaf.sharding, NamedSharding):
        return None
    return leaf.sharding.mesh if leaf.sharding.mesh.size > 1 else None


def on_mesh(model: Model, mesh: Mesh | None) -> tuple[Model, Mesh | None]:
    """The model with its parameters on each device of the mesh (None: where they are); one device
    is no mesh."""
    held = mesh_of(model)
    mesh = mesh or held
    if mesh is None or mesh.size == 1:
        return model, None
    if mesh != held:
        params = sharding.put(model.params, sharding.replicated(mesh))
        model = dataclasses.replace(model, params=params)
    return model, mesh


def placed(model: Model, rows: np.ndarray) -> Any:
    """An array over the mesh that holds the parameters, by its first axis where that divides."""
    mesh = mesh_of(model)
    if mesh is None or rows.shape[0] % mesh.size:
        return rows
    split = NamedSharding(mesh, PartitionSpec(sharding.AXES))
    return jax.make_array_from_callback(rows.shape, split, lambda index: rows[index])


def in_flight(started: Iterable[Any], most: int = 2) -> Iterator[Any]:
    """The same values, `most` later: what the device has begun before the host reads a result.

    To read a result is to wait for it. With two batches begun the device always has the next one
    while the host makes arrays of the one after.
    """
    waiting: collections.deque = collections.deque()
    for one in started:
        waiting.append(one)
        if len(waiting) > most:
            yield waiting.popleft()
    yield from waiting
