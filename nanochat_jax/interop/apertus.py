"""A classic model of nanochat as an Apertus model, which other programs run.

transformers, llama.cpp, ollama, vLLM, SGLang and MLX have no nanochat architecture that all of them
share, and need none: after a change of weights that loses nothing, a model of the classic recipe
computes what `ApertusForCausalLM` computes. Pure.

- nanochat norms the embedding before the first block: its rows are normed here, once.
- It rotates queries and keys by the negative angle: with the second half of each head's rows
  negated, the other direction gives the same products.
- It norms queries and keys after the rotation, Apertus before: a rotation changes no norm.
- relu(x)^2 is xIELU (arXiv:2411.13010) with beta 0, alpha_n 0 and alpha_p 1. Files hold the alphas
  before a softplus: ln(e - 1) gives 1, and -100 gives 4e-44.
- No norm has a weight in nanochat: all of Apertus's are ones.

The soft cap on the logits has no place there.
"""

import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from nanochat_jax.config.gpt import GPTConfig
from nanochat_jax.interop.names import rename

ALPHA_P, ALPHA_N, BETA, EPS = math.log(math.e - 1.0), -100.0, 0.0, -1e-6
# nanochat's key of a matrix, and its name in Apertus.
KEYS_AND_NAMES = (
    ("transformer.wte.weight", "model.embed_tokens.weight"),
    ("transformer.h.{i}.attn.c_{qkv}.weight", "model.layers.{i}.self_attn.{qkv}_proj.weight"),
    ("transformer.h.{i}.attn.c_proj.weight", "model.layers.{i}.self_attn.o_proj.weight"),
    ("transformer.h.{i}.mlp.c_fc.weight", "model.layers.{i}.mlp.up_proj.weight"),
    ("transformer.h.{i}.mlp.c_proj.weight", "model.layers.{i}.mlp.down_proj.weight"),
    ("lm_head.weight", "lm_head.weight"),
)


def config(cfg: GPTConfig) -> dict[str, Any]:
    """What a `config.json` says of the model's shape and constants."""
    return dict(
        architectures=["ApertusForCausalLM"], model_type="apertus", hidden_act="xielu",
        vocab_size=cfg.vocab_size, hidden_size=cfg.n_embd, intermediate_size=4 * cfg.n_embd,
        num_hidden_layers=cfg.n_layer, num_attention_heads=cfg.n_head,
        num_key_value_heads=cfg.n_kv_head, max_position_embeddings=cfg.sequence_len,
        rms_norm_eps=cfg.norm_eps, attention_bias=False, attention_dropout=0.0,
        tie_word_embeddings=False, initializer_range=0.02, use_cache=True,
        rope_parameters=dict(rope_type="default", rope_theta=cfg.rope_base),
        # transformers before 5, whose own defaults are another base and a scaling, and mlx-lm.
        rope_theta=cfg.rope_base, rope_scaling=None, mlp_bias=False, post_norm=False, qk_norm=True,
    )  # fmt: skip


def differences(cfg: GPTConfig) -> list[str]:
    """What an Apertus model does otherwise than this one, for people."""
    found = []
    if cfg.logit_softcap:
        found.append(
            f"without the soft cap of {cfg.logit_softcap:g} on logits: greedy text is the same, "
            "sampled text a little less varied"
        )
    if cfg.rope_table_dtype != "float32":
        found.append(f"rotary tables in float32 instead of {cfg.rope_table_dtype}")
    return found


def tensors(cfg: GPTConfig, state: Mapping[str, np.ndarray]) -> Iterator[tuple[str, np.ndarray]]:
    """(name in Apertus, float32 array `[out, in]`) of each of its parameters and buffers.

    Args:
        state: of nanochat's keys; padding rows of the vocabulary are left out.
    """
    for key, array in state.items():
        yield rename(key, KEYS_AND_NAMES), _turned(cfg, key, np.asarray(array, np.float32))
    ones = lambda n: np.ones(n, np.float32)
    for i in range(cfg.n_layer):
        layer = f"model.layers.{i}"
        yield f"{layer}.attention_layernorm.weight", ones(cfg.n_embd)
        yield f"{layer}.feedforward_layernorm.weight", ones(cfg.n_embd)
        for name in "qk":
            yield f"{layer}.self_attn.{name}_norm.weight", ones(cfg.head_dim)
        for name, value in (
            ("alpha_p", [ALPHA_P]),
            ("alpha_n", [ALPHA_N]),
            ("beta", BETA),
            ("eps", EPS),
        ):
            yield f"{layer}.mlp.act_fn.{name}", np.asarray(value, np.float32)
    yield "model.norm.weight", ones(cfg.n_embd)


def _turned(cfg: GPTConfig, key: str, array: np.ndarray) -> np.ndarray:
    """One matrix as Apertus wants it."""
    if key == "transformer.wte.weight":
        array = array[: cfg.vocab_size].astype(np.float64)
        mean = np.mean(array * array, axis=-1, keepdims=True)
        array = array / np.sqrt(mean + cfg.norm_eps)
    elif key == "lm_head.weight":
        array = array[: cfg.vocab_size]
    elif key.endswith((".attn.c_q.weight", ".attn.c_k.weight")):
        heads = array.reshape(-1, 2, cfg.head_dim // 2, array.shape[-1])
        array = (heads * np.array([1, -1])[:, None, None]).reshape(array.shape)
    # safetensors and GGUF write the raw buffer: a transposed view would be saved wrong.
    return np.ascontiguousarray(array, np.float32)
