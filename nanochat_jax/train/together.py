"""How several processes of a run agree between two steps: that they stop, that they save."""

from collections.abc import Callable
from functools import partial
from typing import TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from nanochat_jax import sharding
from nanochat_jax.hosts import group
from nanochat_jax.stopping import Interrupted, Stop

T = TypeVar("T")


class Together:
    """The `Stop` of one of several processes, `own` being what this one heard.

    With every step goes the largest of the signals that the processes heard, and whether process 0
    has something due, over all devices. It is read a step later, when it is long there: nobody
    waits for it, and all read the same at the same step. Nothing is given up half-way, for the
    others take part in it.
    """

    def __init__(self, own: Stop, mesh: Mesh):
        self._own = own
        self._places = NamedSharding(mesh, P(sharding.AXES, None))
        most = partial(jnp.max, axis=0)
        self._most = jax.jit(most, out_shardings=sharding.replicated(mesh))
        self._sent: jax.Array | None = None

    def between_steps(self, due: bool = False) -> bool:
        """What was due in process 0 a step ago. Raises Interrupted, in all processes, if one of
        them had heard a signal then."""
        number, agreed = (0, 0) if self._sent is None else np.asarray(self._sent).tolist()
        if number:
            raise Interrupted(128 + number)
        # What all do now is not due again.
        own = self._own.number, due and group.chief() and not agreed
        rows = np.tile(np.asarray(own, np.int32), (self._places.mesh.size, 1))
        self._sent = self._most(sharding.from_host(rows, self._places))
        return bool(agreed)

    def run(self, work: Callable[[], T], slow: Callable[[float], None] | None = None) -> T:
        """`work()`, to its end; `slow` as of `Stop.run`."""
        return work() if slow is None else self._own.run(work, slow, to_its_end=True)
