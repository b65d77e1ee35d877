"""The mesh, and the one table that says where every array of a training run lies.

Both axes split the rows of a batch, what a run keeps between its steps (parameters and moments),
and the sum of its gradients. They differ in how weights come together to compute
(`train/exchange.py`): over `data` all at once, over `fsdp` layer by layer. A dimension that the
devices do not divide stays whole.
"""

import math
import re
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from nanochat_jax.config.mesh import AXES, parse_mesh

DATA, FSDP = AXES
# A share on the `fsdp` axis is then one piece, of which `data` has pieces.
REST = P((FSDP, DATA))
# First match wins; the path of an array is its keys joined by "/". Arrays smaller than `SMALL`
# are kept whole: their traffic would be all latency.
# A parameter in float32 and its moments are read by its update alone, so each device keeps and
# updates a share of them (ZeRO). What everyone needs in every forward pass is a copy in the type
# that computes: half the bytes to send, and none to keep.
TABLE: tuple[tuple[str, P], ...] = (
    (r"(^|/)second_momentum_buffer/", P()),
    (r"/(kernel|embedding)$", REST),
    (r"", P()),
)
SMALL = 1024


def mesh_axes(text: str | None, available: int) -> dict[str, int]:
    """Axis name -> devices, for `8`, `data=4,fsdp=2`, or empty (all `available` on data).

    Raises:
        ValueError: a text of another form, or one that wants more devices than there are.
    """
    axes = parse_mesh(text or "") or parse_mesh(str(available))
    wanted = math.prod(axes.values())
    if wanted > available:
        raise ValueError(
            f"mesh {text!r} needs {wanted} devices, this machine has {available}; "
            f"use --mesh {available}, or add --simulate-devices to try it on virtual CPU devices"
        )
    return axes


def make_mesh(text: str | None = None, devices: Sequence[jax.Device] | None = None) -> Mesh:
    """The mesh that `--mesh` names, over the first devices of the machine, with both axes.

    Raises as `mesh_axes`.
    """
    all_devices = devices is None
    devices = jax.devices() if all_devices else list(devices)
    sizes = tuple(mesh_axes(text, len(devices)).values())
    # A process without a device in the mesh would have no part in anything.
    if all_devices and jax.process_count() > 1 and math.prod(sizes) < len(devices):
        raise ValueError(
            f"mesh {text!r} has {math.prod(sizes)} devices, the {jax.process_count()} processes "
            f"have {len(devices)}; use --mesh {len(devices)}, or start fewer"
        )
    auto = (AxisType.Auto,) * len(AXES)
    return jax.make_mesh(sizes, AXES, auto, devices=devices[: math.prod(sizes)])


def spec(mesh: Mesh, path: str, shape: Sequence[int]) -> P:
    """Where the table puts the array of that path and shape; whole if it cannot be split so."""
    wanted = next(spec for pattern, spec in TABLE if re.search(pattern, path))
    if not wanted or not shape or math.prod(shape) < SMALL:
        return P()
    return wanted if mesh.size > 1 and shape[0] % mesh.size == 0 else P()


def shardings(mesh: Mesh, tree: Any) -> Any:
    """The sharding of every leaf (array or ShapeDtypeStruct) of parameters, state or both."""
    return jax.tree.map(lambda spec: NamedSharding(mesh, spec), specs(mesh, tree))


def specs(mesh: Mesh, tree: Any) -> Any:
    """The same as `PartitionSpec`s: how every leaf lies on the mesh."""
    return _by_path(lambda path, x: spec(mesh, path, x.shape), tree)


def _by_path(place: Callable[[str, Any], Any], tree: Any) -> Any:
    name = lambda keys: jax.tree_util.keystr(keys, simple=True, separator="/")
    return jax.tree_util.tree_map_with_path(lambda keys, x: place(name(keys), x), tree)


def batch_sharding(mesh: Mesh, ndim: int = 3) -> NamedSharding:
    """Splits the rows (last axis but one) of `[accumulation, rows, tokens]` or `[rows, tokens]`."""
    return NamedSharding(mesh, P(*[None] * (ndim - 2), AXES, None))


def put(tree: Any, places: Any) -> Any:
    """Values that every process has whole, as arrays that lie as `places` (a tree of shardings or
    one for all) say: each process hands its own devices their parts."""
    if jax.process_count() == 1:
        return jax.device_put(tree, places)
    # Not `device_put`: over several processes it sends every array to all, to compare them.
    if isinstance(places, jax.sharding.Sharding):
        places = jax.tree.map(lambda _: places, tree)
    return jax.tree.map(from_host, tree, places)


def from_host(x: Any, place: jax.sharding.Sharding) -> jax.Array:
    """An array of which this process hands its own devices their parts, unless it lies there."""
    if isinstance(x, jax.Array) and x.sharding == place:
        return x
    x = np.asarray(x)
    return jax.make_array_from_callback(x.shape, place, lambda index: x[index])


def replicated(mesh: Mesh) -> NamedSharding:
    """The whole array on every device."""
    return NamedSharding(mesh, P())
