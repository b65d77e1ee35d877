"""Stages so small that each runs in seconds: what their TOML files begin with, text and chats."""

import json
import pathlib

from nanochat_jax.config.paths import base_data
from nanochat_jax.data import importer, shards

# Up to the middle of [base], whose steps are a test's own.
SETTINGS = """
device_batch_size = 2
max_seq_len = 32
total_batch_size = 128
eval_every = -1
sample_every = -1
[tokenizer]
vocab_size = 280
[base]
depth = 1
aspect_ratio = 16
head_dim = 16
"""
CHATS = [[{"role": "user", "content": f"Is {n} more?"}, {"role": "assistant", "content": "Yes."}]
         for n in range(40)]  # fmt: skip


def write_base(root: pathlib.Path, settings: str, numbers: list[range]) -> None:
    """A base directory: `c.toml`, chats, and for each range a shard with a document a number."""
    (root / "c.toml").write_text(SETTINGS + settings)
    for i, some in enumerate(numbers):
        texts = [f"The number {n} is one more than {n - 1}. " * (1 + n % 3) for n in some]
        shards.write_shard(base_data(root) / shards.shard_name(i), texts)
    chats = root / "c.jsonl"
    chats.write_text("\n".join(map(json.dumps, CHATS)))
    importer.add_conversations(root, [chats])
