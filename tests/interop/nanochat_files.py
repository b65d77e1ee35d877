"""Folders as nanochat leaves them, of any era, for tests."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np

from nanochat_jax import interop
from nanochat_jax.config.convert import Import
from nanochat_jax.config.gpt import GPTConfig
from nanochat_jax.interop import eras, nanochat, torchfile
from nanochat_jax.tokenizer import Tokenizer

SHAPE = dict(sequence_len=64, vocab_size=300, n_layer=3, n_head=2, n_kv_head=2, n_embd=64)


def state_of(era: str, seed: int = 0, **changes: Any) -> dict[str, np.ndarray]:
    """Random tensors under an era's keys."""
    cfg = GPTConfig(**{**eras.ERAS[era].constants, **SHAPE, **changes})
    rng = np.random.default_rng(seed)
    shapes = eras.expected_shapes(cfg)
    return {key: rng.normal(0, 0.1, size).astype(np.float32) for key, size in shapes.items()}


def meta_of(era: str, **user_config: Any) -> dict[str, Any]:
    pattern = {} if era == "A" else {"window_pattern": "SSSL"}
    return {"step": 7, "val_bpb": 1.5, "model_config": {**SHAPE, **pattern},
            "user_config": {"depth": 3, **user_config}}  # fmt: skip


def tokenizer_of(vocab_size: int = 300) -> Tokenizer:
    texts = ["the cat sat on the mat and the dog ran home to sleep under a warm blanket"] * 20
    return Tokenizer.train(texts, vocab_size)


def folder_of(root: Path, state: dict, meta: dict, tag: str = "d3", step: int = 7) -> Path:
    """A base directory of nanochat's with one step in it; returns the base directory."""
    folder = root / "base_checkpoints" / tag
    folder.mkdir(parents=True, exist_ok=True)
    torchfile.save(folder / f"model_{step:06d}.pt", state)
    (folder / f"meta_{step:06d}.json").write_text(json.dumps(meta))
    if not (root / "tokenizer").exists():
        nanochat.write_tokenizer(root / "tokenizer", tokenizer_of())
    return root


def take(theirs: Path, **given: Any) -> tuple[Path, list[str]]:
    """`convert import` of a folder."""
    return interop.import_model(Import(dir=str(theirs), **given))


def several_steps(theirs: Path) -> None:
    for kind, end in (("model", "pt"), ("meta", "json")):
        folder = theirs / "base_checkpoints/d3"
        shutil.copy(folder / f"{kind}_000007.{end}", folder / f"{kind}_000009.{end}")
