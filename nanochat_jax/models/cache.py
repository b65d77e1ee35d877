"""What a model remembers of the tokens it has read: keys, values, and the last embedding."""

from typing import Any

import flax.struct
import jax
import jax.numpy as jnp

from nanochat_jax.config.gpt import GPTConfig


@flax.struct.dataclass
class KVCache:
    """(keys, values) `[B, S, K, H]` of every layer, each row at its own length.

    Keys are rotated, normed and scaled already. The first `length_B[b]` positions of row `b` are
    real; what lies behind them is overwritten before it is ever attended to. `last_embed_BD` is
    the embedding before smear of each row's last token.
    """

    # One array a layer, not a stacked [L, B, S, K, H]: a loop updates separate arrays in place but
    # copies a stack whole for every token (on a CPU 3 to 4 times a step's time at 16 rows).
    layers: tuple[tuple[jax.Array, jax.Array], ...]
    length_B: jax.Array
    last_embed_BD: jax.Array

    @property
    def room(self) -> int:
        """How many positions a row has."""
        return self.layers[0][0].shape[1]


def init_cache(cfg: GPTConfig, batch: int, length: int, dtype: Any = jnp.float32) -> KVCache:
    """An empty cache for `batch` rows of at most `length` tokens."""
    empty = lambda: jnp.zeros((batch, length, cfg.n_kv_head, cfg.head_dim), dtype)
    return KVCache(
        layers=tuple((empty(), empty()) for _ in range(cfg.n_layer)),
        length_B=jnp.zeros(batch, jnp.int32),
        last_embed_BD=jnp.zeros((batch, cfg.n_embd), dtype),
    )


def write(layer_BSKH: jax.Array, new_BTKH: jax.Array, start_B: jax.Array) -> jax.Array:
    """The layer's keys or values with `T` new ones from `start_B` on; what overflows is dropped."""
    B, T = new_BTKH.shape[:2]
    rows_B1 = jnp.arange(B)[:, None]
    at_BT = start_B[:, None] + jnp.arange(T)[None]
    # "drop": a row without room must not write over its own last key, which clamping would do.
    return layer_BSKH.at[rows_B1, at_BT].set(new_BTKH.astype(layer_BSKH.dtype), mode="drop")
