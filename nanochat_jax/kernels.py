"""How whole rows are computed on the machine at hand: their attention, and products in 8 bits.

Neither changes what a model means. A choice that was left open is told with its reason. What
decoding uses, one token at a time, is chosen in `serve/engine/kernels.py`.
"""

import logging
from typing import Any

import jax
import jax.numpy as jnp

from nanochat_jax import devices
from nanochat_jax.config.gpt import GPTConfig
from nanochat_jax.models.attention import whole_rows

log = logging.getLogger(__name__)

# The attention that needs no particular machine. On a CPU it loses at no length: up to 128 tokens a
# row is one block, and at 256 it takes two thirds of the time of whole scores.
ANYWHERE = "blocks"


def choose_attention(wanted: str, cfg: GPTConfig, dtype: Any) -> str:
    """`cudnn`, `blocks` or `xla` for `--attention`.

    Raises:
        ValueError: cuDNN was asked for by name and does not run here.
    """
    if wanted in ("blocks", "xla"):
        return wanted
    platform, name = jax.default_backend(), jnp.dtype(dtype).name
    if wanted == "auto" and (platform != "gpu" or name != "bfloat16"):
        log.info("attention: %s (%s, %s)", ANYWHERE, name, platform)
        return ANYWHERE
    if (fault := cudnn_fault(cfg, dtype)) is None:
        log.info("attention: cuDNN (tried on a small case)")
        return "cudnn"
    if wanted == "cudnn":
        raise ValueError(f"--attention cudnn does not run here: {fault}; use --attention blocks")
    log.warning("SLOW ATTENTION: cuDNN's does not run here: %s", fault)
    return ANYWHERE


def cudnn_fault(cfg: GPTConfig, dtype: Any) -> str | None:
    """Why cuDNN's attention cannot be trusted with this model; None: a small case came out right.

    It runs forward and backward with the model's heads and each of its windows, and is compared
    with plain attention in float32.
    """
    T = 256
    keys = jax.random.split(jax.random.key(0), 4)
    heads = cfg.n_head, cfg.n_kv_head, cfg.n_kv_head, cfg.n_head
    arrays = [
        jax.random.normal(k, (1, T, n, cfg.head_dim)) for k, n in zip(keys, heads, strict=True)
    ]
    for window in {None if w is None else min(w, T // 4) for w in cfg.masks}:
        exact = _results("xla", window, *arrays)
        try:
            got = _results("cudnn", window, *(a.astype(dtype) for a in arrays))
        except Exception as error:  # the compiler's and the driver's have no type in common
            return f"{type(error).__name__}: {error}".splitlines()[0][:200]
        for ours, theirs in zip(got, exact, strict=True):
            off = float(jnp.linalg.norm(ours.astype(jnp.float32) - theirs))
            if not off <= 0.03 * float(jnp.linalg.norm(theirs)):
                return f"its numbers are off by {off / float(jnp.linalg.norm(theirs)):.1%}"
    return None


def _results(attention: str, window: int | None, q, k, v, cotangent) -> tuple[jax.Array, ...]:
    """(output, gradients by q, k and v) of whole rows."""
    position_BT = jnp.arange(q.shape[1])[None]
    run = lambda q, k, v: whole_rows(attention, q, k, v, position_BT, window)
    both = jax.jit(lambda q, k, v, d: ((out := jax.vjp(run, q, k, v))[0], *out[1](d)))
    return jax.block_until_ready(both(q, k, v, cotangent))


def check_fp8(device: Any) -> None:
    """Says where eight-bit products are emulated.

    Raises:
        ValueError: a GPU that has none.
    """
    if device.platform != "gpu":
        log.warning("fp8: emulated on this %s: right numbers, slower than without", device.platform)
        return
    # Compute capability 8.9 is Ada: the first with float8 tensor cores, and with XLA's use of them.
    # The float8 of AMD's older cards is of another kind.
    if (devices.capability(device) or 0.0) < 8.9:
        capability = getattr(device, "compute_capability", "")
        raise ValueError(
            "--fp8 needs an NVIDIA GPU of compute capability 8.9 or more (H100, L40S, RTX 40); got "
            f"{device.device_kind} ({capability or 'none'}): leave --fp8 out, or type --no-fp8"
        )
