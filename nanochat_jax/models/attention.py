"""Causal self-attention: rotary positions, normed queries and keys, windows, shared kv heads."""

import importlib
import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from nanochat_jax.config.gpt import GPTConfig
from nanochat_jax.models import cache as kv
from nanochat_jax.models.block_attention import block_attention
from nanochat_jax.models.init import matrix_init, zeros
from nanochat_jax.models.linear import Layer
from nanochat_jax.models.pointwise import rotated_norm

# Where `attend_one` lies, the attention of one new token a row in a kernel of ours.
KERNELS = {"pallas": "nanochat_jax.models.attend_one", "rust": "nanochat_jax.models.on_cpu"}


def rotary_tables(cfg: GPTConfig, position_BT: jax.Array, dtype: Any) -> tuple[jax.Array, ...]:
    """(cos, sin) `[B, T, 1, H/2]` of the angles position x base^(-2i/H), as the era rounds them.

    Computed for the positions at hand, not stored: they are few, and no context is too long.
    Source: arXiv:2104.09864.
    """
    H = cfg.head_dim
    # A larger base turns the last pairs more slowly, so that they still tell distances apart in a
    # long context: 10,000 in classic, 100,000 in current.
    # Exponent, power and reciprocal are rounded each, as torch does: the last bit shows far out in
    # a row, and in a table of bfloat16.
    exponent_h = (np.arange(0, H, 2, dtype=np.float32) / np.float32(H)).astype(np.float64)
    frequency_h = np.float32(1.0) / np.float32(cfg.rope_base**exponent_h)
    angle_BTh = position_BT.astype(jnp.float32)[..., None] * frequency_h[None, None]
    # Classic rounds its table to bfloat16 even in float32 runs. Exact angles would be other
    # logits, which `tests/golden` tells apart.
    table = dtype if cfg.rope_table_dtype == "compute" else cfg.rope_table_dtype
    cast = lambda a: a.astype(table).astype(dtype)[:, :, None, :]
    return cast(jnp.cos(angle_BTh)), cast(jnp.sin(angle_BTh))


def attend(
    q_BTNH: jax.Array, k_BSKH: jax.Array, v_BSKH: jax.Array,
    position_BT: jax.Array, window: int | None,
) -> jax.Array:  # fmt: skip
    """Softmax attention `[B, T, N, H]`: position p sees keys p - window to p (None: 0 to p).

    Query head n uses kv head n // (N / K).
    """
    B, T, N, H = q_BTNH.shape
    S, K = k_BSKH.shape[1:3]
    k_BSKH, v_BSKH = k_BSKH.astype(q_BTNH.dtype), v_BSKH.astype(q_BTNH.dtype)
    q_BTKGH = q_BTNH.reshape(B, T, K, N // K, H)
    if T == 1:
        # Keys first: with one query XLA would otherwise transpose all keys on a CPU.
        w_BKSG = jnp.einsum("BSKH,BKGH->BKSG", k_BSKH, q_BTKGH[:, 0])
        w_BKGTS = w_BKSG.swapaxes(2, 3)[:, :, :, None]
    else:
        w_BKGTS = jnp.einsum("BTKGH,BSKH->BKGTS", q_BTKGH, k_BSKH)
    # The softmax in float32: a sum over thousands of keys would lose the small ones in bfloat16.
    w_BKGTS = w_BKGTS.astype(jnp.float32) * (1.0 / math.sqrt(H))
    behind_BTS = position_BT[:, :, None] - jnp.arange(S)[None, None, :]
    limit = S if window is None else window
    seen_BTS = behind_BTS >= 0 if limit >= S else (behind_BTS >= 0) & (behind_BTS <= limit)
    w_BKGTS = jnp.where(seen_BTS[:, None, None], w_BKGTS, -jnp.inf)
    p_BKGTS = jax.nn.softmax(w_BKGTS, axis=-1).astype(q_BTNH.dtype)
    if T == 1:  # and here all values
        return jnp.einsum("BKGS,BSKH->BKGH", p_BKGTS[:, :, :, 0], v_BSKH).reshape(B, 1, N, H)
    out_BTKGH = jnp.einsum("BKGTS,BSKH->BTKGH", p_BKGTS, v_BSKH)
    return out_BTKGH.reshape(B, T, N, H)


def whole_rows(
    attention: str,
    q_BTNH: jax.Array,
    k_BTKH: jax.Array,
    v_BTKH: jax.Array,
    position_BT: jax.Array,
    window: int | None,
) -> jax.Array:
    """`attend` of rows without a cache, computed as `attention` says (see `GPT`)."""
    if attention == "blocks":
        return block_attention(q_BTNH, k_BTKH, v_BTKH, window)
    if attention != "cudnn":
        return attend(q_BTNH, k_BTKH, v_BTKH, position_BT, window)
    # A flash kernel: it never writes the [T, T] scores that `attend` writes and reads again.
    local = None if window is None or window >= q_BTNH.shape[1] else (window, 0)
    return jax.nn.dot_product_attention(
        q_BTNH, k_BTKH, v_BTKH, is_causal=True, local_window_size=local, implementation="cudnn"
    )


class Attention(Layer):
    """One layer's attention. `gated`: it mixes a value embedding into its values.

    A window makes a layer cheaper, in FLOPs and in keys to read; what lies further back still
    arrives through the layers above it, each of which looks one window further, and the last
    layer always sees everything (`GPTConfig.windows`).
    """

    window: int | None
    gated: bool
    attention: str

    def setup(self):
        c = self.cfg
        self.c_q = self.matrix(c.n_head * c.head_dim, matrix_init(c))
        self.c_k = self.matrix(c.n_kv_head * c.head_dim, matrix_init(c))
        self.c_v = self.matrix(c.n_kv_head * c.head_dim, matrix_init(c))
        # The three side by side, as serving stores them: one product in place of three.
        self.c_qkv = self.matrix((c.n_head + 2 * c.n_kv_head) * c.head_dim, matrix_init(c))
        # Zero, as in the MLP: a new block adds nothing, so the stream reaches the output matrix
        # unspoilt at any depth, and blocks join in as they find something to say.
        self.c_proj = self.matrix(c.n_embd, zeros)
        if self.gated:
            # Small and positive: sigmoid gives about 1/2 at first.
            self.ve_gate = self.matrix(c.n_kv_head, nn.initializers.uniform(0.02))

    def __call__(self, x_BTD, tables, position_BT, value_embed_BTX=None, past=None):
        """(output [B, T, D], (keys, values) of the layer after this call)."""
        c = self.cfg
        B, T, _ = x_BTD.shape
        q_BTNH, k_BTKH, v_BTKH = projected = self._projected(x_BTD)
        if self.gated:
            # What a token is, handed to attention directly: layers above need not carry it along
            # in the stream. Capacity nearly without FLOPs, since a lookup multiplies nothing. The
            # gate, from a few channels of the input, lets each head decide where it helps.
            # Source: arXiv:2410.17897 (value residual); nanochat, dev/LOG.md of January 2026:
            # every second layer is best, and the gate helps.
            gate_BTK = nn.sigmoid(self.ve_gate(x_BTD[..., : c.ve_gate_width]))
            gate_BTK = gate_BTK * jnp.asarray(c.ve_gate_scale, self.dtype)
            v_BTKH = v_BTKH + gate_BTK[..., None] * value_embed_BTX.reshape(v_BTKH.shape)
        if self.attention in KERNELS and past is not None and T == 1:
            # Only here: a jax without Pallas' Triton backend shall still import this file.
            attend_one = importlib.import_module(KERNELS[self.attention]).attend_one
            # XLA sees that these are the parts of one product: nothing is copied.
            heads_BMH = jnp.concatenate(projected, axis=2)[:, 0]
            values = {"values_BKH": v_BTKH[:, 0]} if self.gated else {}
            scales = dict(window=self.window, eps=c.norm_eps, qk_scale=c.qk_scale)
            more = tables, past, position_BT[:, 0]
            out, layer = attend_one(heads_BMH, *more, **values, **scales)
            return self.c_proj(out.reshape(B, T, -1)), layer
        # Normed queries and keys bound the scores: no head can grow its weights until softmax
        # saturates and gradients stop. `qk_scale` gives back some of the sharpness that the bound
        # takes. Source: arXiv:2010.04245.
        turned = lambda y: rotated_norm(y, tables, c.norm_eps, c.qk_scale)
        q_BTNH, k_BTKH = turned(q_BTNH), turned(k_BTKH)
        if past is None:
            out = whole_rows(self.attention, q_BTNH, k_BTKH, v_BTKH, position_BT, self.window)
            return self.c_proj(out.reshape(B, T, -1)), None
        start_B = position_BT[:, 0]
        k_BSKH, v_BSKH = kv.write(past[0], k_BTKH, start_B), kv.write(past[1], v_BTKH, start_B)
        out = attend(q_BTNH, k_BSKH, v_BSKH, position_BT, self.window)
        return self.c_proj(out.reshape(B, T, -1)), (k_BSKH, v_BSKH)

    def _projected(self, x_BTD: jax.Array) -> list[jax.Array]:
        """Queries, keys and values `[B, T, heads, H]`."""
        c = self.cfg
        N, K = c.n_head, c.n_kv_head
        heads = lambda y, n: y.reshape(*x_BTD.shape[:2], n, c.head_dim)
        if self.has_variable("params", "c_qkv"):
            return jnp.split(heads(self.c_qkv(x_BTD), N + 2 * K), [N, N + K], axis=2)
        matrices = (self.c_q, N), (self.c_k, K), (self.c_v, K)
        return [heads(matrix(x_BTD), n) for matrix, n in matrices]
