"""Programs: each parses its config and calls one function. The original's names answer too."""

from nanochat_jax.config import environment

environment.check()

from nanochat_jax.config import old_words  # noqa: E402  (what is imported here needs packages)
from nanochat_jax.hosts import torchrun  # noqa: E402

torchrun.alone()
old_words.install()
