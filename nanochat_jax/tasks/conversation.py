"""Conversations as people write them: one JSON value a line, checked before anything is trained."""

import pathlib
from collections.abc import Iterator, Mapping
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
    messages = [_plain(message) for message in chat_format.messages_of(value)]
    chat_format.check(messages, at_least=2)
    return messages


def answered_messages(value: Any) -> tuple[Messages, int]:
    """(messages, number of those left out): as `checked_messages`, without unanswered questions.

    A chat that somebody led has replies that were stopped before a word, or failed, and may end
    with a question. What was asked there is left out with the empty reply; no message may remain.
    """
    messages = [_plain(message) for message in chat_format.messages_of(value)]
    kept = _answered(messages)
    dropped = len(messages) - len(kept)
    try:
        if any(_role(message) != "system" for message in kept) or not dropped:
            chat_format.check(kept, at_least=1 if dropped else 2)
            return kept, dropped
        return [], len(messages)
    except ValueError as error:
        note = f" (not counting {dropped} message(s) without a reply)" if dropped else ""
        raise ValueError(f"{error}{note}") from None


def _answered(messages: Messages) -> Messages:
    spoken = [m for m in messages if _role(m) != "assistant" or _says_something(m)]
    after = [*map(_role, spoken[1:]), None]
    unanswered = lambda message, then: _role(message) == "user" and then in ("user", None)
    return [m for m, then in zip(spoken, after, strict=True) if not unanswered(m, then)]


def _says_something(message: Mapping[str, Any]) -> bool:
    content = message.get("content", "?")
    if isinstance(content, list):
        return any(part.get("text", "?") if isinstance(part, Mapping) else 1 for part in content)
    return bool(content)


def _plain(message: Any) -> Any:
    """Role and content in nanochat's words, where they are in OpenAI's."""
    if not isinstance(message, Mapping):
        return message
    # Nothing else of a message is trained on; with times or ids the same chat would be another.
    plain = _only(message, "role", "content")
    if _role(plain) == "developer":  # the name that system has for OpenAI's newer models
        plain["role"] = "system"
    if _role(plain) == "assistant" and plain.get("content", "") is None:  # beside a tool's call
        plain["content"] = ""
    if _role(plain) == "assistant" and isinstance(plain.get("content"), list):
        plain["content"] = [_only(part, "type", "text") for part in plain["content"]]
    if _role(plain) in ("system", "user") and _are_texts(plain.get("content")):
        plain["content"] = "".join(part["text"] for part in plain["content"])
    return plain


def _only(value: Any, *keys: str) -> Any:
    is_mapping = isinstance(value, Mapping)
    return {key: value[key] for key in keys if key in value} if is_mapping else value


def _role(message: Any) -> Any:
    return message.get("role") if isinstance(message, Mapping) else None


def _are_texts(content: Any) -> bool:
    is_text = lambda p: isinstance(p, Mapping) and p.get("type") == "text"
    return isinstance(content, list) and all(
        is_text(part) and isinstance(part.get("text"), str) for part in content
    )
