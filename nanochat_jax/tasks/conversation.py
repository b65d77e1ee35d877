"""Conversations as people write them: one JSON value a line, checked before anything is trained."""

import pathlib
from collections.abc import Iterator
from typing import Any

from nanochat_jax.tasks.jsonl import read_values
from nanochat_jax.tokenizer import chat_format

Messages = list[dict[str, Any]]


def read_conversations(path: pathlib.Path) -> Iterator[Messages]:
    """The conversations of a JSONL file, nanochat's lists of messages or `{"messages": [...]}`.

    Raises as `read_values` does, naming file, line and what is wrong with it.
    """
    return read_values(path, checked_messages)


def checked_messages(value: Any) -> Messages:
    """The messages of a conversation to train on; raises ValueError with what is wrong."""
    # When read, not when rendered: a line that cannot be must not end a run hours later.
    messages = chat_format.messages_of(value)
    chat_format.check(messages, at_least=2)
    return messages
