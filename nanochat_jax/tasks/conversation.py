"""Conversations as people write them: one JSON value a line, checked before anything is trained."""

import pathlib
from collections.abc import Iterator
from typing import Any

from nanochat_jax.tasks.jsonl import read_values

Messages = list[dict[str, Any]]


def read_conversations(path: pathlib.Path) -> Iterator[Messages]:
    """The conversations of a JSONL file (`.gz` too); blank lines are passed over.

    A line is a list of messages (nanochat's form) or `{"messages": [...]}`.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: naming file, line and what is wrong with it.
    """
    return read_values(path, messages_of)


def messages_of(value: Any) -> Messages:
    """The messages of one line's value; raises ValueError with what is wrong."""
    if isinstance(value, dict):
        if "messages" not in value:
            wanted = 'a list of messages or {"messages": [...]}'
            raise ValueError(f"expected {wanted}, got an object with keys {list(value)}")
        value = value["messages"]
    check(value)
    return value


def check(messages: Any) -> None:
    """Raises ValueError unless these are messages: [system,] user, assistant, user, ..."""
    if not isinstance(messages, list) or len(messages) < 2:
        raise ValueError(f"expected a list of at least 2 messages, got {_short(messages)}")
    for i, message in enumerate(messages):
        if not isinstance(message, dict) or not {"role", "content"} <= message.keys():
            raise ValueError(f"message {i} is {_short(message)}; expected role and content")
    roles = [m["role"] for m in messages]
    turns = roles[1:] if roles[0] == "system" else roles
    for i, role in enumerate(turns):
        expected = ("user", "assistant")[i % 2]
        if role != expected:
            raise ValueError(f"turn {i} has role {role!r}; expected {expected!r}: turns alternate")
    for i, message in enumerate(messages):
        _check_content(i, message)


PART_TYPES = ("text", "python", "python_output")


def _check_content(i: int, message: dict[str, Any]) -> None:
    content = message["content"]
    if isinstance(content, str):
        return
    if message["role"] != "assistant" or not isinstance(content, list):
        raise ValueError(f"message {i} has content {_short(content)}; expected a string")
    for part in content:
        good = isinstance(part, dict) and part.get("type") in PART_TYPES
        if not good or not isinstance(part.get("text"), str):
            raise ValueError(
                f"message {i} has a part {_short(part)}; expected "
                f'{{"type": one of {", ".join(PART_TYPES)}, "text": a string}}'
            )


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
