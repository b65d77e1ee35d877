"""The mesh, and the one table that says where every array of a training run lies.

Two axes: `data` splits the rows of a batch and the optimizer's state (ZeRO-1); `fsdp` does the
same and splits the parameters at rest too. A dimension that the devices do not divide stays whole.
"""

import math
import re
from collections.abc import Callable, Sequence
from typing import Any

import jax
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from nanochat_jax.config.mesh import AXES, parse_mesh

# First match wins; the path of an array is its keys joined by "/". Arrays smaller than `SMALL`
# are kept whole: their traffic would be all latency.
# The moments of a parameter are read by its update alone: each device may keep and update a share
# of them (ZeRO), while weights are needed by everyone in every forward pass.
TABLE: tuple[tuple[str, P], ...] = (
    (r"(^|/)second_momentum_buffer/", P()),
    (r"(^|/)(exp_avg|exp_avg_sq|momentum_buffer)/", P(AXES)),
    (r"/(kernel|embedding)$", P("fsdp")),
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
    devices = jax.devices() if devices is None else list(devices)
    sizes = tuple(mesh_axes(text, len(devices)).values())
    auto = (AxisType.Auto,) * len(AXES)
    return jax.make_mesh(sizes, AXES, auto, devices=devices[: math.prod(sizes)])


def spec(mesh: Mesh, path: str, shape: Sequence[int]) -> P:
    """Where the table puts the array of that path and shape; whole if it cannot be split so."""
    wanted = next(spec for pattern, spec in TABLE if re.search(pattern, path))
    if not wanted or not shape or math.prod(shape) < SMALL:
        return P()
    axes = wanted[0] if isinstance(wanted[0], tuple) else (wanted[0],)
    parts = math.prod(mesh.shape[axis] for axis in axes)
    return wanted if parts > 1 and shape[0] % parts == 0 else P()


def shardings(mesh: Mesh, tree: Any) -> Any:
    """The sharding of every leaf (array or ShapeDtypeStruct) of parameters, state or both."""
    return _by_path(lambda path, x: NamedSharding(mesh, spec(mesh, path, x.shape)), tree)


def optimizer_specs(mesh: Mesh, params: Any) -> Any:
    """Parameter by parameter, how the optimizer's moments of it are split, and so its gradient."""
    return _by_path(lambda path, x: spec(mesh, f"exp_avg/{path}", x.shape), params)


def _by_path(place: Callable[[str, Any], Any], tree: Any) -> Any:
    name = lambda keys: jax.tree_util.keystr(keys, simple=True, separator="/")
    return jax.tree_util.tree_map_with_path(lambda keys, x: place(name(keys), x), tree)


def batch_sharding(mesh: Mesh, ndim: int = 3) -> NamedSharding:
    """Splits the rows (last axis but one) of `[accumulation, rows, tokens]` or `[rows, tokens]`."""
    return NamedSharding(mesh, P(*[None] * (ndim - 2), AXES, None))


def replicated(mesh: Mesh) -> NamedSharding:
    """The whole array on every device."""
    return NamedSharding(mesh, P())
