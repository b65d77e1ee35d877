"""The loss, in nats a token."""

import jax
import jax.numpy as jnp


def token_nll(logits_BTV: jax.Array, targets_BT: jax.Array) -> jax.Array:
    """Cross entropy of each target, float32 [B, T]; 0 where the target is -1 (ignored)."""
    # In float32: a bfloat16 has 8 bits, and the sum of a vocabulary's exponentials needs more.
    logits_BTV = logits_BTV.astype(jnp.float32)
    # -1 would count from the end: any real index does, since the mask below removes the result.
    safe_BT1 = jnp.maximum(targets_BT, 0)[..., None]
    picked_BT = jnp.take_along_axis(logits_BTV, safe_BT1, axis=-1)[..., 0]
    nll_BT = jax.nn.logsumexp(logits_BTV, axis=-1) - picked_BT
    return jnp.where(targets_BT >= 0, nll_BT, 0.0)
