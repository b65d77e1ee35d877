"""The engine: many replies at once from one jitted decode loop. `Engine(model, tokenizer)`."""

from nanochat_jax.serve.engine.engine import Engine

__all__ = ["Engine"]
