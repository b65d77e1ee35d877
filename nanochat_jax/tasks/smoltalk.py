"""SmolTalk: everyday conversations, most of what chat is trained on. Source: arXiv:2502.02737."""

from collections.abc import Mapping, Sequence
from typing import Any

from nanochat_jax.tasks.conversation import checked_messages
from nanochat_jax.tasks.task import Task, shuffled


def task(rows: Sequence[Any], name: str = "SmolTalk") -> Task:
    """The conversations in nanochat's order; nothing to score."""
    return Task(name, shuffled(rows), conversation)


def conversation(row: Mapping[str, Any] | Sequence[Mapping[str, str]]) -> dict[str, Any]:
    """A row `{"messages": [...]}`, or the messages alone, checked."""
    return {"messages": checked_messages(row)}
