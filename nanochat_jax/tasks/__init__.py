"""What a model learns from and is evaluated on: one file a task, built by name."""

from nanochat_jax.tasks.registry import KNOWN, build, build_one, files
from nanochat_jax.tasks.task import Mixture, Task
from nanochat_jax.tokenizer.chat_format import Conversation

__all__ = ["KNOWN", "Conversation", "Mixture", "Task", "build", "build_one", "files"]
