"""Decoding on CPUs: attention of one new token a row, and products with the weights.

Both are compiled beside the tokenizer (`rustbpe/src/attend.rs`, `product.rs`) and called from
inside XLA's programs. XLA's own products pack the weights or turn the cache anew in every step, and
a layer has three dozen small operations, each with its own way through the runtime. Float32 only.
Letters: B rows, M heads as projected (N queries, K keys, K values), S cached tokens, H head width.
"""

import ctypes
import functools

import jax
import jax.numpy as jnp
import numpy as np

from nanochat_jax import _rustbpe

Pair = tuple[jax.Array, jax.Array]
HEAD = 16  # what a head's width must be a multiple of
BLOCK = 16  # outputs whose weights lie side by side


@functools.cache
def _known() -> None:
    """Makes both known to XLA, once.

    Raises:
        RuntimeError: this machine's processor lacks their instructions.
            Or `nanochat_jax/_rustbpe` was compiled before there were any.
    """
    library = ctypes.CDLL(_rustbpe.__file__)
    if not hasattr(library, "nanochat_fast"):
        raise RuntimeError("nanochat_jax/_rustbpe is of an earlier version; type: make setup")
    library.nanochat_fast.restype = ctypes.c_bool
    if not library.nanochat_fast():
        raise RuntimeError("the processor has no AVX2 and FMA")
    for name in ("nanochat_attend", "nanochat_product"):
        jax.ffi.register_ffi_target(name, jax.ffi.pycapsule(library[name]), platform="cpu")


def pack(W_IO: jax.Array) -> jax.Array:
    """W as `product` reads it, `[O / 16, I, 16]`, filled up with zeros."""
    I, O = W_IO.shape
    padded_IO = jnp.pad(W_IO, ((0, 0), (0, -O % BLOCK)))
    return padded_IO.reshape(I, -1, BLOCK).swapaxes(0, 1)


def product(
    x_NI: jax.Array, packed: jax.Array, outputs: int, scale_O: jax.Array | None = None
) -> jax.Array:
    """x W `[N, O]`, float32, of a `pack`ed W; with `scale_O` W is int8 and outputs have factors.

    A row's numbers do not depend on the others.
    """
    _known()
    out = jax.ShapeDtypeStruct((x_NI.shape[0], outputs), jnp.float32)
    scales = () if scale_O is None else (scale_O,)
    return jax.ffi.ffi_call("nanochat_product", out)(x_NI, packed, *scales)


def attend_one(
    heads_BMH: jax.Array, tables: Pair, past: Pair, length_B: jax.Array,
    *, values_BKH: jax.Array | None = None, window: int | None, eps: float, qk_scale: float,
) -> tuple[jax.Array, Pair]:  # fmt: skip
    """(output `[B, N, H]`, the layer's keys and values with the new token at `length_B`).

    As the function of that name in `attend_one.py`; H is a multiple of 16.
    """
    _known()
    (B, M, H), K = heads_BMH.shape, past[0].shape[2]
    N = M - 2 * K
    values, first_value = (heads_BMH, N + K) if values_BKH is None else (values_BKH, 0)
    shape = lambda *dims: jax.ShapeDtypeStruct(dims, jnp.float32)
    out = shape(B, N, H), *(shape(*x.shape) for x in past)
    # Keys and values are written in place.
    call = jax.ffi.ffi_call("nanochat_attend", out, input_output_aliases={5: 1, 6: 2})
    out_BNH, *layer = call(
        heads_BMH, values, *(table.reshape(B, H // 2) for table in tables), length_B, *past,
        window=np.int32(-1 if window is None else window), eps=np.float32(eps),
        qk_scale=np.float32(qk_scale), first_value=np.int32(first_value),
    )  # fmt: skip
    return out_BNH, tuple(layer)
