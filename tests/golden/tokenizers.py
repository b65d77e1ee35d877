"""The tokenizer that a set of golden files was made with, built once."""

import functools
from pathlib import Path

from nanochat_jax.tokenizer import Tokenizer
from tests.golden.conftest import beside, load_json


@functools.cache
def golden_tokenizer(folder: Path) -> Tokenizer:
    """The tokenizer of `tokenizer_artifact*.json` in an era's folder."""
    golden = load_json(beside(folder, "tokenizer_artifact*.json"))
    ranks = {bytes.fromhex(token): rank for token, rank in golden["mergeable_ranks"]}
    return Tokenizer(ranks, golden["pattern"], golden["special_tokens"])
