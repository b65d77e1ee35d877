"""How a run in several processes stops: all of them between the same two steps."""

from collections.abc import Callable
from typing import TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from nanochat_jax import sharding
from nanochat_jax.stopping import Interrupted, Stop

T = TypeVar("T")


class Together:
    """The `Stop` of one of several processes, `own` being what this one heard.

    With every step goes the largest of the signals that the processes heard, over all devices. It
    is read a step later, when the step before it is done: nobody waits for it, and all read the
    same at the same step. Nothing is given up half-way, for the others take part in it.
    """

    def __init__(self, own: Stop, mesh: Mesh):
        self._own = own
        self._places = NamedSharding(mesh, P(sharding.AXES))
        self._most = jax.jit(jnp.max, out_shardings=sharding.replicated(mesh))
        self._sent: jax.Array | None = None

    def between_steps(self) -> None:
        """Raises Interrupted, in all processes, if one of them had heard a signal a step ago."""
        if self._sent is not None and (number := int(self._sent)):
            raise Interrupted(128 + number)
        own = np.full(self._places.mesh.size, self._own.number, np.int32)
        self._sent = self._most(sharding.from_host(own, self._places))

    def run(self, work: Callable[[], T], slow: Callable[[float], None] | None = None) -> T:
        """`work()`, to its end; `slow` as of `Stop.run`."""
        return work() if slow is None else self._own.run(work, slow, to_its_end=True)
