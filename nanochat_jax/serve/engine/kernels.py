"""Which kernels decoding uses here: ours where they come out right, else XLA's.

Those for NVIDIA GPUs are written for Pallas' Triton backend, which jax 0.12 calls deprecated, those
for CPUs in Rust, for what XLA hands to foreign functions. So they are never taken on trust: each is
run on a small case first, and what XLA does instead chooses the same tokens.
"""

import functools
import importlib
import logging
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from nanochat_jax.config.gpt import GPTConfig
from nanochat_jax.models import cache as kv
from nanochat_jax.models import on_cpu
from nanochat_jax.models.attention import KERNELS, attend, rotary_tables
from nanochat_jax.models.pointwise import rms_norm, rotate
from nanochat_jax.serve.engine.decode import Sample
from nanochat_jax.serve.engine.sampling import sample

log = logging.getLogger(__name__)


def choose_attention(cfg: GPTConfig, dtype: Any) -> str:
    """`pallas`, `rust` or `xla`: how `GPT` attends with one new token a row."""
    # Where the head's width is no power of two Triton has no block for it.
    if jax.default_backend() == "gpu" and cfg.head_dim.bit_count() == 1:
        kernel = "pallas"
    elif _on_cpu(dtype) and cfg.head_dim % on_cpu.HEAD == 0:
        kernel = "rust"
    else:
        return "xla"
    return kernel if _works("attention", lambda: attention_fault(cfg, dtype, kernel)) else "xla"


def choose_product(dtype: Any) -> str:
    """`packed` or `turned`: in which order of its matrices `Linear` multiplies."""
    return "packed" if _on_cpu(dtype) and _works("products", product_fault) else "turned"


def _on_cpu(dtype: Any) -> bool:
    return jax.default_backend() == "cpu" and jnp.dtype(dtype) == jnp.float32


def choose_sample() -> Sample:
    """What draws tokens: on a GPU one kernel in place of a hundred small ones."""
    if jax.default_backend() != "gpu" or not _works("drawing tokens", draw_fault):
        return sample
    from nanochat_jax.serve.engine.draw_kernel import draw

    return draw


def _works(what: str, fault: Callable[[], str | None]) -> bool:
    try:
        reason = fault()
    except Exception as error:  # Pallas', the compiler's and the driver's have no type in common
        reason = f"{type(error).__name__}: {error}".splitlines()[0][:200]
    _tell(what, reason)
    return reason is None


@functools.cache  # a model in training is prepared again and again: one warning is enough
def _tell(what: str, reason: str | None) -> None:
    if reason is None:
        log.debug("%s: our kernel (tried on a small case)", what)
    else:
        log.warning("SLOW DECODING: %s goes through XLA, our kernel fails here: %s", what, reason)


@functools.cache
def attention_fault(cfg: GPTConfig, dtype: Any, kernel: str) -> str | None:
    """What is wrong with the kernel's numbers for this model's heads and windows; None: nothing."""
    attend_one = importlib.import_module(KERNELS[kernel]).attend_one
    B, S, N, K = 4, 200, cfg.n_head, cfg.n_kv_head
    length_B = jnp.asarray([0, 64, 130, S - 1], jnp.int32)
    keys = jax.random.split(jax.random.key(0), 3)
    draw = lambda key, *shape: jax.random.normal(key, (*shape, cfg.head_dim), dtype)
    heads_BMH, past = draw(keys[0], B, N + 2 * K), tuple(draw(key, B, S, K) for key in keys[1:])
    tables = rotary_tables(cfg, length_B[:, None], dtype)
    limit = 1e-4 if jnp.dtype(dtype) == jnp.float32 else 0.03  # of a row's norm

    def plain(window):
        q_BTNH, k_BTKH, v_BTKH = jnp.split(heads_BMH[:, None], [N, N + K], axis=2)
        turned = lambda x: rms_norm(rotate(x, tables), cfg.norm_eps) * cfg.qk_scale
        put = lambda cache, new: kv.write(cache, new, length_B)
        layer = put(past[0], turned(k_BTKH)), put(past[1], v_BTKH)
        return attend(turned(q_BTNH), *layer, length_B[:, None], window)[:, 0], *layer

    def ours(window):
        scales = dict(window=window, eps=cfg.norm_eps, qk_scale=cfg.qk_scale)
        out, layer = attend_one(heads_BMH, tables, past, length_B, **scales)
        return out, *layer

    for window in {None if w is None else min(w, 70) for w in cfg.masks}:
        pairs = zip(jax.jit(ours, static_argnums=0)(window), plain(window), strict=True)
        for got, expected in pairs:
            # Row by row: one that attends to a single key would outweigh all others.
            norms = lambda x: jnp.linalg.norm(x.astype(jnp.float32).reshape(B, -1), axis=1)
            off = float((norms(got - expected) / norms(expected)).max())
            if not off <= limit:
                return f"its numbers are off by {off:.2%}"
    return None


@functools.cache
def product_fault() -> str | None:
    """How far the product in float32 or int8 is off; None: it is right."""
    rng = np.random.default_rng(0)
    x_NI, W_IO = (rng.normal(size=size).astype(np.float32) for size in ((9, 40), (40, 21)))
    scale_O = rng.uniform(1, 2, 21).astype(np.float32)
    for kernel_IO, scales in ((W_IO, ()), (np.asarray(9 * W_IO, np.int8), (scale_O,))):
        expected = x_NI @ kernel_IO.astype(np.float32) * (scales or (1.0,))[0]
        found = on_cpu.product(x_NI, on_cpu.pack(jnp.asarray(kernel_IO)), 21, *scales)
        off = np.abs(found - expected).max()
        if not off <= 1e-5 * np.abs(expected).max():
            return f"its numbers are off by {off:.2g}"
    return None


@functools.cache
def draw_fault() -> str | None:
    """How many tokens the kernel draws differently than `sample`; None: none."""
    from nanochat_jax.serve.engine.draw_kernel import draw

    rng, B = np.random.default_rng(0), 64
    logits_BV = jnp.asarray(2 * rng.normal(size=(B, 1000)), jnp.float32)
    choices = (0.0, 0.5, 1.0), (0, 1, 5, 50), (1.0, 0.9, 0.3)
    settings = [rng.choice(c, B) for c in choices] + [rng.uniform(size=B)]
    types = jnp.float32, jnp.int32, jnp.float32, jnp.float32
    arrays = [jnp.asarray(x, dtype) for x, dtype in zip(settings, types, strict=True)]
    wrong = int(jnp.sum(jax.jit(draw)(logits_BV, *arrays) != jax.jit(sample)(logits_BV, *arrays)))
    return f"{wrong} of {B} tokens are not those that XLA draws" if wrong else None
