"""Slots over the devices of a mesh: each decodes its own rows, none waits for another.

Slot r lies on device r mod n, so that the slots that are filled first are spread evenly. Weights
are whole on every device. Each reads the prompts of its own rows, one at a time, and continues what
it holds itself: nothing goes from one to another.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from nanochat_jax.models.cache import KVCache
from nanochat_jax.serve.engine.decode import DecodeOutput, Rows
from nanochat_jax.sharding import AXES

# How an argument lies on the mesh: split by its rows; [steps, rows], split by rows; whole.
ROWS, STEPS_ROWS, WHOLE = P(AXES), P(None, AXES), P()
# All devices run the same program, one with nothing to do on a row that it does not have.
NO_PLACE = np.iinfo(np.int32).max


class Placement:
    """How `slots` rows lie on `mesh` (None: all on JAX's first device).

    Raises ValueError when the devices do not divide the slots.
    """

    def __init__(self, mesh: Mesh | None, slots: int):
        self._mesh = mesh if mesh is not None and mesh.size > 1 else None
        self.devices = self._mesh.size if self._mesh is not None else 1
        if slots % self.devices:
            near = -(-slots // self.devices) * self.devices
            raise ValueError(
                f"{slots} slots cannot be spread evenly over {self.devices} devices; take {near}"
            )

    def replicate(self, tree: Any) -> Any:
        """The arrays of `tree`, whole on every device."""
        if self._mesh is None:
            return tree
        return jax.device_put(tree, NamedSharding(self._mesh, WHOLE))

    def maker(self, make: Callable[[], KVCache]) -> Callable[[], KVCache]:
        """`make`, a cache's maker, with each device's rows made where they will lie."""
        if self._mesh is None:
            return make
        return jax.jit(make, out_shardings=NamedSharding(self._mesh, ROWS))

    def places(self, slots: Sequence[int]) -> np.ndarray:
        """Of every device the place among its rows of the one slot that is its own."""
        places = np.full(self.devices, NO_PLACE, np.int32)
        for slot in slots:
            places[slot % self.devices] = slot // self.devices
        return places

    def arrange(self, rows: Rows, count: int) -> Rows:
        """The first `count` rows, device by device."""
        split = lambda x: x[:count].reshape(-1, self.devices, *x.shape[1:]).swapaxes(0, 1)
        return jax.tree.map(lambda x: split(x).reshape(count, *x.shape[1:]), rows)

    def restore(self, chunk: DecodeOutput) -> DecodeOutput:
        """What `arrange`d rows chose, in the order of the slots again."""
        n = self.devices
        split = lambda x: x.reshape(len(x), n, x.shape[1] // n, *x.shape[2:]).swapaxes(1, 2)
        return jax.tree.map(lambda x: split(x).reshape(x.shape), chunk)

    def map(self, run: Callable, into: Any, out: Any) -> Callable:
        """`run` on every device with its own part of what `into` and `out` split over them."""
        if self._mesh is None:
            return run
        # Unchecked: each device leaves its loop when its own rows are done.
        return jax.shard_map(run, mesh=self._mesh, in_specs=into, out_specs=out, check_vma=False)
