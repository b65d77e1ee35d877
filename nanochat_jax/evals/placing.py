"""Where a model and its rows lie while it is scored, and how many of them at once."""

import dataclasses
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from nanochat_jax import sharding
from nanochat_jax.models.gpt import Model

# The original's rotary tables are this many contexts long; a longer prompt stops it.
CONTEXTS = 10
BATCH_TOKENS = {"cpu": 2048}  # of a forward pass on each device; elsewhere:
BATCH_TOKENS_ELSEWHERE = 16384


def longest(model: Model) -> int:
    """Tokens of the longest row that is read whole; of a longer one the last so many."""
    return CONTEXTS * model.cfg.sequence_len


def batch_tokens() -> int:
    """Tokens of a forward pass that suit a device."""
    return BATCH_TOKENS.get(jax.default_backend(), BATCH_TOKENS_ELSEWHERE)


def mesh_of(model: Model) -> Mesh | None:
    """The mesh that holds the parameters, if it has several devices."""
    here = getattr(jax.tree.leaves(model.params)[0], "sharding", None)
    mesh = getattr(here, "mesh", None)
    return mesh if mesh is not None and mesh.size > 1 else None


def on_mesh(model: Model, mesh: Mesh | None) -> tuple[Model, Mesh | None]:
    """The model with its parameters on the mesh (None: where they are); one device is no mesh."""
    held = mesh_of(model)
    mesh = mesh or held
    if mesh is None or mesh.size == 1:
        return model, None
    if mesh != held:
        params = jax.device_put(model.params, sharding.shardings(mesh, model.params))
        model = dataclasses.replace(model, params=params)
    return model, mesh


def placed(model: Model, rows_BT: np.ndarray) -> Any:
    """Rows over the mesh that holds the parameters, where they divide."""
    mesh = mesh_of(model)
    if mesh is None or rows_BT.shape[0] % mesh.size:
        return rows_BT
    split = sharding.batch_sharding(mesh, 2)
    return jax.make_array_from_callback(rows_BT.shape, split, lambda index: rows_BT[index])
