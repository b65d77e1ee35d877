"""SmolTalk: everyday conversations to learn from. Source: arXiv:2502.02737."""

from collections.abc import Mapping, Sequence
from typing import Any

from nanochat_jax.tasks.conversation import checked_messages
from nanochat_jax.tasks.rows import RowTask, Shuffled


def task(rows: Sequence[Any], name: str = "SmolTalk") -> RowTask:
    """The conversations in nanochat's order; nothing to mark."""
    return RowTask(name, Shuffled(rows), conversation)


def conversation(row: Mapping[str, Any] | Sequence[Mapping[str, str]]) -> dict[str, Any]:
    """A row `{"messages": [...]}`, or the messages alone.

    Raises:
        ValueError: roles out of turn, or a message that is no text.
    """
    return {"messages": checked_messages(row)}
