"""The matrices of the model: ordinary ones, and ones that were stored as int8 for serving."""

import flax.linen as nn
import jax


class Linear(nn.Dense):
    """x W. An int8 kernel has a float32 `scale` per output channel beside it: x W scale.

    The channels' scales multiply the result, so that W itself is read as int8 and nothing else.
    """

    def __call__(self, x: jax.Array) -> jax.Array:
        y = super().__call__(x)
        if self.has_variable("params", "scale"):
            scale = self.get_variable("params", "scale").astype(y.dtype)
            y = y * scale.reshape(*[1] * (y.ndim - 1), -1)
        return y
