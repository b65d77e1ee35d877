"""The GPT of every era of nanochat: token ids to logits, with or without a cache.

Which features a model has is read from its config; nothing here knows a recipe's name.
Source: nanochat `nanochat/gpt.py`, October 2025 and July 2026.
"""

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax
from jax.ad_checkpoint import checkpoint_name

from nanochat_jax.config.gpt import GPTConfig
from nanochat_jax.models.attention import Attention, rotary_tables
from nanochat_jax.models.cache import KVCache
from nanochat_jax.models.init import centered_uniform, falling, matrix_init, zeros
from nanochat_jax.models.linear import Layer
from nanochat_jax.models.loss import soft_capped
from nanochat_jax.models.pointwise import rms_norm, squared_relu
from nanochat_jax.models.remat import PRODUCT, in_turn, rematerialised

Params = dict[str, Any]


class MLP(Layer):
    """relu(x W)^2 W', four times as wide inside."""

    def setup(self):
        self.c_fc = self.matrix(4 * self.cfg.n_embd, matrix_init(self.cfg, 0.4))
        self.c_proj = self.matrix(self.cfg.n_embd, zeros)

    def __call__(self, x_BTD: jax.Array) -> jax.Array:
        return self.c_proj(squared_relu(self.c_fc(x_BTD)))


class Block(Layer):
    """Attention and MLP, each on the norm of the stream and added to it.

    The stream itself is never normed between blocks: gradients reach each of them through sums.
    """

    window: int | None
    gated: bool
    attention: str

    def setup(self):
        types = self.cfg, self.dtype, self.param_dtype, self.fp8
        self.attn = Attention(*types, self.window, self.gated, self.attention)
        self.mlp = MLP(*types)

    def __call__(self, x_BTD, tables, position_BT, value_embed_BTX=None, past=None):
        if past is not None or self.is_initializing():
            return self._sums(x_BTD, value_embed_BTX, tables, position_BT, past)
        rows = in_turn(lambda block, *inputs: block._sums(*inputs)[0])
        return rows(self, x_BTD, value_embed_BTX, tables, position_BT), None

    def _sums(self, x_BTD, value_embed_BTX, tables, position_BT, past=None):
        """The stream after attention and MLP, and attention's new keys and values."""
        norm = lambda x: rms_norm(x, self.cfg.norm_eps)
        # The barriers hide from XLA that the stream is itself a sum: a product then adds it to its
        # result before it writes that, instead of leaving the sum to a kernel of its own. A few
        # decoded tokens are rather summed and normed at once.
        opaque = lax.optimization_barrier if past is None else lambda x: x
        x_BTD = opaque(x_BTD)
        attended_BTD, new = self.attn(norm(x_BTD), tables, position_BT, value_embed_BTX, past)
        x_BTD = opaque(checkpoint_name(x_BTD + attended_BTD, PRODUCT))
        return x_BTD + self.mlp(norm(x_BTD)), new


class GPT(Layer):
    """`apply({"params": params}, tokens_BT, cache, valid_B) -> (logits_BTV float32, cache)`.

    `dtype` computes, `param_dtype` stores. `attention` is how it is computed, never what it means:
    "xla" anywhere; for rows without a cache "blocks" anywhere and "cudnn" on NVIDIA GPUs in
    bfloat16; for one token after what is cached "pallas" on NVIDIA GPUs and "rust" on CPUs in
    float32. What a kernel is not for goes through XLA.
    `remat`: what a block keeps for its backward pass, see `models/remat.py`.
    `fp8`: the blocks' large matrices multiply in eight bits, see `models/fp8.py`.
    `gather`: `(name, parameters) -> parameters` makes a block's parameters whole as it runs, and
    again in its backward pass; None: they are whole.
    """

    dtype: Any = jnp.float32
    param_dtype: Any = jnp.float32
    attention: str = "xla"
    remat: str = "none"
    fp8: bool = False
    gather: Callable[[str, Params], Params] | None = None

    def setup(self):
        c, gated = self.cfg, self.cfg.value_embed_layers
        constant, normal = nn.initializers.constant, nn.initializers.normal
        # The vocabulary is padded so that tensor cores and a sharded optimizer divide it; nothing
        # ever looks up the padding, and `logits` cuts it off.
        types = dict(dtype=self.dtype, param_dtype=self.param_dtype)
        table = partial(nn.Embed, c.padded_vocab_size, **types)
        self.wte = table(c.n_embd, embedding_init=normal(0.8 if c.init == "current" else 1.0))
        block = lambda i: rematerialised(
            Block, self.remat, self.gather and partial(self.gather, f"h_{i}")
        )
        own = lambda i: (c.masks[i], i in gated, self.attention)
        self.h = [
            block(i)(c, self.dtype, self.param_dtype, self.fp8, *own(i)) for i in range(c.n_layer)
        ]
        # Not tied to `wte`: nanochat trains the two at rates about 40 to 50 times apart, and
        # starts this one at (nearly) zero, where embeddings must differ from the start. So the
        # first loss is ln(vocabulary): no step is spent on unlearning chance preferences.
        head_init = normal(0.001) if c.init == "current" else zeros
        self.lm_head = self.matrix(c.padded_vocab_size, head_init, fp8=False)
        uniform = centered_uniform((3.0 / c.n_embd) ** 0.5)
        width = c.n_kv_head * c.head_dim
        self.value_embeds = {str(i): table(width, embedding_init=uniform) for i in gated}
        if c.residual_scalars:
            # Early layers start with more of the stream and of the embedding than late ones.
            self.resid_lambdas = self.param("resid_lambdas", falling(1.15, 0.10), (c.n_layer,))
            self.x0_lambdas = self.param("x0_lambdas", falling(0.20, 0.15), (c.n_layer,))
        if c.smear:
            self.smear_gate = self.matrix(1, nn.initializers.uniform(0.02))
            self.smear_lambda = self.param("smear_lambda", zeros, (1,))
        if c.backout:
            self.backout_lambda = self.param("backout_lambda", constant(0.2), (1,))

    def __call__(
        self, tokens_BT: jax.Array, cache: KVCache | None = None, valid_B: jax.Array | None = None
    ) -> tuple[jax.Array, KVCache | None]:
        """Logits of every position and the cache with the new tokens (None without a cache).

        With a cache row `b` goes on at its own length; the first `valid_B[b]` (default all) of its
        `T` tokens are real, the others leave no trace.
        """
        x_BTD, cache = self.hidden(tokens_BT, cache, valid_B)
        return self.logits(x_BTD), cache

    def logits(self, x_BTD: jax.Array) -> jax.Array:
        """Logits, float32, of the real vocabulary, soft-capped where the model has a cap.

        It bounds them to +-`logit_softcap`, smoothly: a model cannot lower its loss by growing
        the output matrix without end. Source: arXiv:2408.00118 (Gemma 2).
        """
        c = self.cfg
        z_BTV = self.lm_head(x_BTD)[..., : c.vocab_size]
        return soft_capped(z_BTV, c.logit_softcap, c.softcap_dtype)[0]

    def hidden(
        self, tokens_BT: jax.Array, cache: KVCache | None = None, valid_B: jax.Array | None = None
    ) -> tuple[jax.Array, KVCache | None]:
        """What enters the output matrix, `[B, T, D]`, and the cache; see `__call__`."""
        c = self.cfg
        T = tokens_BT.shape[1]
        # Without a cache all rows begin at 0, and share one row of positions and angles.
        start_B = jnp.zeros(1, jnp.int32) if cache is None else cache.length_B
        position_BT = start_B[:, None] + jnp.arange(T, dtype=jnp.int32)[None]
        tables = rotary_tables(c, position_BT, self.dtype)
        # Normed at once: whatever lengths the embeddings grow to, blocks add to a stream of one
        # size.
        embed_BTD = rms_norm(self.wte(tokens_BT), c.norm_eps)
        x_BTD = self._smear(embed_BTD, cache) if c.smear else embed_BTD
        first_BTD, middle_BTD, layers = x_BTD, None, []
        for i, block in enumerate(self.h):
            if c.residual_scalars:
                # A learned share of the stream and of its beginning, layer by layer: the token
                # itself stays within reach of every layer. In nanochat worth 0.004 to 0.010 bpb.
                kept, mixed = self._scalar(self.resid_lambdas[i]), self._scalar(self.x0_lambdas[i])
                x_BTD = kept * x_BTD + mixed * first_BTD
            embed = self.value_embeds.get(str(i))
            value_embed = None if embed is None else embed(tokens_BT)
            past = None if cache is None else cache.layers[i]
            x_BTD, new = block(x_BTD, tables, position_BT, value_embed, past)
            layers.append(new)
            if c.backout and i == c.backout_layer:
                middle_BTD = x_BTD
        if c.backout:
            # The idea: what the first half of the model wrote is there for the layers above it,
            # not for the next token. A learned share of it is taken out before the output matrix.
            x_BTD = x_BTD - self._scalar(self.backout_lambda[0]) * middle_BTD
        x_BTD = rms_norm(x_BTD, c.norm_eps)
        return x_BTD, None if cache is None else _grown(cache, layers, embed_BTD, valid_B)

    def _smear(self, embed_BTD: jax.Array, cache: KVCache | None) -> jax.Array:
        """Each embedding with a gated share of the one before it; a row's first has none.

        So the first layer already sees pairs of tokens, which attention would otherwise spend a
        layer and its previous-token heads on.
        """
        B, _, D = embed_BTD.shape
        before_BD = jnp.zeros((B, D), embed_BTD.dtype)
        if cache is not None:
            known_BD = cache.last_embed_BD.astype(embed_BTD.dtype)
            before_BD = jnp.where(cache.length_B[:, None] > 0, known_BD, before_BD)
        shifted_BTD = jnp.concatenate([before_BD[:, None], embed_BTD[:, :-1]], axis=1)
        gate_BT1 = nn.sigmoid(self.smear_gate(embed_BTD[..., : self.cfg.smear_width]))
        return embed_BTD + self._scalar(self.smear_lambda[0]) * gate_BT1 * shifted_BTD

    def _scalar(self, x: jax.Array) -> jax.Array:
        return x.astype(self.dtype)


def _grown(
    cache: KVCache, layers: list[Any], embed_BTD: jax.Array, valid_B: jax.Array | None
) -> KVCache:
    """The cache after `valid_B` real new tokens of each row."""
    B, T, _ = embed_BTD.shape
    valid_B = jnp.full(B, T, jnp.int32) if valid_B is None else valid_B.astype(jnp.int32)
    at_B11 = jnp.maximum(valid_B - 1, 0)[:, None, None]
    last_BD = jnp.take_along_axis(embed_BTD, at_B11, axis=1)[:, 0]
    kept_BD = cache.last_embed_BD
    return KVCache(
        layers=tuple(layers),
        length_B=cache.length_B + valid_B,
        last_embed_BD=jnp.where(valid_B[:, None] > 0, last_BD.astype(kept_BD.dtype), kept_BD),
    )


def init_params(cfg: GPTConfig, key: jax.Array, **types: Any) -> Params:
    """Freshly drawn parameters; `types` are GPT's dtypes."""
    # Two tokens are enough: shapes do not depend on the row's length.
    return GPT(cfg, **types).init(key, jnp.zeros((1, 2), jnp.int32))["params"]


@partial(jax.jit, static_argnums=0)
def _logits(gpt: GPT, params: Params, ids_BT: jax.Array) -> jax.Array:
    return gpt.apply({"params": params}, ids_BT)[0]


@dataclasses.dataclass(frozen=True)
class Model:
    """A GPT with its parameters: `model(ids)` gives float32 logits `[B, T, V]`."""

    gpt: GPT
    params: Params

    @classmethod
    def create(cls, cfg: GPTConfig, params: Params, dtype: Any = jnp.float32) -> "Model":
        """The model of that config, computing in `dtype` (`devices.compute_dtype` chooses)."""
        return cls(GPT(cfg, dtype=jnp.dtype(dtype)), params)

    @property
    def cfg(self) -> GPTConfig:
        return self.gpt.cfg

    def __call__(self, ids: Any) -> jax.Array:
        return _logits(self.gpt, self.params, jnp.atleast_2d(jnp.asarray(ids, jnp.int32)))
