"""What travels between devices in a step: weights in the compute type, gradients on their way back.

Every device keeps a share of each large parameter (`sharding.TABLE`). Over the `data` axis shares
are gathered once a step, and gradients summed once a step: traffic does not grow with accumulation.
Over the `fsdp` axis a layer's shares are gathered when it runs, and again when its backward pass
does, and its gradient is summed at once: no device ever holds all weights, or all gradients. (With
`--fp8 --remat none` it does hold all weights in eight bits, which the backward pass is given.)

All of this runs inside `shard_map`. Source: ZeRO (arXiv:1910.02054), FSDP (arXiv:2304.11277).
"""

import dataclasses
from functools import partial
from typing import Any

import jax
from jax import lax
from jax.sharding import Mesh

from nanochat_jax.sharding import AXES, DATA, FSDP


@dataclasses.dataclass(frozen=True)
class Exchange:
    """The exchanges of one model on one mesh.

    `specs` says parameter by parameter how it lies at rest; `reduce_dtype` is the type in which
    gradients of divided parameters are sent and summed. The others are small, and stay float32.
    """

    mesh: Mesh
    specs: Any
    reduce_dtype: Any

    @property
    def layerwise(self) -> bool:
        """Whether parameters come together layer by layer."""
        return self.mesh.shape[FSDP] > 1

    def once(self, params: Any) -> Any:
        """The parameters whole, or this device's share of them on the `fsdp` axis."""
        if self.mesh.shape[DATA] == 1:
            return params
        gather = lambda p, spec: lax.all_gather(p, DATA, tiled=True) if spec else p
        return jax.tree.map(gather, params, self.specs)

    def whole(self, name: str, params: Any) -> Any:
        """What stands under `name` in the parameters, whole for as long as it is used."""
        if not self.layerwise:
            return params
        gather = lambda p, spec: _gathered(p, self.reduce_dtype) if spec else p
        return jax.tree.map(gather, params, self.specs[name])

    def summed(self, grads: Any) -> Any:
        """The sum over devices of float32 gradients: this device's share of it, or all."""
        return jax.tree.map(self._summed, grads, self.specs)

    def _summed(self, grad: jax.Array, spec: Any) -> jax.Array:
        if not spec:
            return lax.psum(grad, AXES)
        if self.mesh.shape[DATA] == 1:  # `whole` has summed it
            return grad
        return _scattered(grad, DATA, self.reduce_dtype)


def _scattered(grad: jax.Array, axis: str, dtype: Any) -> jax.Array:
    """This device's share of the sum over `axis`, in the type of `grad`."""
    sent = grad.astype(dtype)
    return lax.psum_scatter(sent, axis, scatter_dimension=0, tiled=True).astype(grad.dtype)


@partial(jax.custom_vjp, nondiff_argnums=(1,))
def _gathered(share: jax.Array, reduce_dtype: Any) -> jax.Array:
    """The whole of a share; its gradient is summed and divided again at once."""
    return lax.all_gather(share, FSDP, tiled=True)


# Not by `_gathered` itself: rematerialisation knows what it must not keep by the primitive's name.
_gathered.defvjp(
    lambda share, _: (lax.all_gather(share, FSDP, tiled=True), None),
    lambda dtype, _, grad: (_scattered(grad, FSDP, dtype),),
)
