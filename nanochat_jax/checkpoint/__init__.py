"""Finding and loading what was trained: `model, tokenizer, meta = load_model("sft")`."""

from nanochat_jax.checkpoint.load import find_checkpoint as find_checkpoint
from nanochat_jax.checkpoint.load import load_model as load_model
from nanochat_jax.checkpoint.load import load_tokenizer as load_tokenizer
