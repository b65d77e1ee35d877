"""Programs: each parses its config and calls one function."""

from nanochat_jax.config import environment

environment.check()
