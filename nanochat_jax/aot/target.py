"""Meshes of cards that are not there: XLA compiles for them, nothing runs on them."""

from typing import Any

import jax
from jax.sharding import AbstractDevice, AbstractMesh, AxisType, Mesh, use_abstract_mesh

from nanochat_jax import sharding
from nanochat_jax.aot.cards import Card, description
from nanochat_jax.config.mesh import AXES, mesh_size
from nanochat_jax.devices import has_cuda_plugin
from nanochat_jax.gpu_process import SEVERAL_DEVICES

PER_NODE = 8  # cards that NVLink or one PCIe tree joins
# XLA measures rival kernels on the card before it picks one. Without a card it takes its own first
# choice: Triton's product where it can, at shapes of tiles that are not the fastest.
NO_CARD = {"xla_gpu_autotune_level": "0"}


def mesh(card: Card, text: str) -> Mesh:
    """The mesh that `--mesh` names (empty: one), of compile-only cards, eight to a node.

    Raises:
        ValueError: a text of another form, or JAX without its CUDA plugin.
    """
    if not has_cuda_plugin():
        raise ValueError(
            "compiling for a GPU needs JAX's CUDA plugin, though no GPU: `make test-gpu` makes "
            "an environment with it, then .venv-gpu/bin/python runs this"
        )
    wanted = mesh_size(text) or 1
    nodes, left = divmod(wanted, PER_NODE)
    shape = f"1x{nodes}x{PER_NODE}" if nodes and not left else f"1x1x{wanted}"
    from jax.experimental import topologies

    found = topologies.get_topology_desc(
        platform="cuda", topology=shape, target_config=description(card)
    )
    return sharding.make_mesh(text or "1", found.devices)


def options(devices: int) -> dict[str, Any]:
    """XLA's options for so many cards: those of a process that runs on them, and `NO_CARD`."""
    own = SEVERAL_DEVICES if devices > 1 else {}
    # What a flag of XLA_FLAGS calls true is True here.
    return NO_CARD | {name: value == "true" or value for name, value in own.items()}


def abstract_mesh(card: Card, mesh: Mesh) -> Any:
    """A context in which Pallas kernels know the card that they are lowered for."""
    device = AbstractDevice(device_kind=card.name, num_cores=card.sms, platform="gpu")
    sizes = tuple(mesh.shape[axis] for axis in AXES)
    auto = (AxisType.Auto,) * len(AXES)
    return use_abstract_mesh(AbstractMesh(sizes, AXES, axis_types=auto, abstract_device=device))


def shaped(mesh: Mesh, tree: Any, spec: Any) -> Any:
    """The arrays of a tree as shapes that lie on the mesh so; scalars whole."""
    whole, split = jax.sharding.NamedSharding(mesh, jax.P()), jax.sharding.NamedSharding(mesh, spec)
    place = lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=split if x.ndim else whole)
    return jax.tree.map(place, tree)
