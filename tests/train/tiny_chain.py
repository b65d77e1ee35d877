"""Stages so small that each runs in seconds: what their TOML files begin with, and chats."""

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
