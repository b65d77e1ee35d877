"""The models of golden files: their weights as our parameters."""

import functools
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from nanochat_jax.config.gpt import GPTConfig, recipe_model_defaults
from nanochat_jax.interop.names import from_nanochat
from nanochat_jax.models.gpt import GPT, Model
from tests.golden.conftest import era_of, load_npz

SHAPE = ("sequence_len", "vocab_size", "n_layer", "n_head", "n_kv_head", "n_embd", "window_pattern")
PREFIXES = ("transformer.", "lm_head.", "value_embeds.", "smear_", "backout_", "resid_", "x0_")


def config_of(path: Path, cfg: dict[str, Any], **changes: Any) -> GPTConfig:
    """The era's config with the shape that a file gives."""
    shape = {k: cfg[k] for k in SHAPE if k in cfg}
    return GPTConfig(**{**recipe_model_defaults(era_of(path)), **shape, **changes})


def weights_of(arrays: dict[str, Any], prefix: str = "") -> dict[str, np.ndarray]:
    """The state dict among a file's arrays."""
    named = {k.removeprefix(prefix): v for k, v in arrays.items() if k.startswith(prefix)}
    return {k: v for k, v in named.items() if k.startswith(PREFIXES)}


@functools.cache
def golden_model(path: Path, **changes: Any) -> Model:
    """The model of a `model_*.npz`, float32."""
    arrays = load_npz(path)
    params = jax.tree.map(jnp.asarray, from_nanochat(weights_of(arrays)))
    return Model(GPT(config_of(path, arrays["cfg.json"], **changes)), params)
