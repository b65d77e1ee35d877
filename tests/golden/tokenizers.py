"""The tokenizers that golden files were made with, each built once."""

import functools
from pathlib import Path

from nanochat_jax.tokenizer import Tokenizer
from tests.golden.conftest import beside, load_json


@functools.cache
def tokenizer_in(path: Path) -> Tokenizer:
    """The tokenizer of a golden `tokenizer_*.json`."""
    golden = load_json(path)
    ranks = {bytes.fromhex(token): rank for token, rank in golden["mergeable_ranks"]}
    return Tokenizer(ranks, golden["pattern"], golden["special_tokens"])


def golden_tokenizer(folder: Path) -> Tokenizer:
    """The tokenizer of `tokenizer_artifact*.json` in an era's folder."""
    return tokenizer_in(beside(folder, "tokenizer_artifact*.json"))


def tokenizer_named_in(path: Path) -> Tokenizer:
    """The tokenizer that a golden file names as its own."""
    return tokenizer_in(path.parent / load_json(path)["tokenizer"])
