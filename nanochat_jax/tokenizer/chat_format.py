"""The chat format: messages to ids, with the mask of the tokens that the assistant is to learn.

A conversation is `{"messages": [{"role": ..., "content": ...}, ...]}`, roles user and assistant in
turn, one system message in front if wanted. An assistant's content is a str or a list of parts
`{"type": "text" | "python" | "python_output", "text": ...}`.
Source: karpathy/nanochat nanochat/tokenizer.py, restated.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from nanochat_jax.tokenizer.bpe import Tokenizer

Conversation = Mapping[str, Any]

# Special tokens around a part, and whether the assistant writes it: tool output comes from outside.
PARTS: dict[str, tuple[str, str, int]] = {
    "text": ("", "", 1),
    "python": ("<|python_start|>", "<|python_end|>", 1),
    "python_output": ("<|output_start|>", "<|output_end|>", 0),
}


class ConversationError(ValueError, AssertionError, IndexError):
    """A conversation that cannot be rendered. Also of the types that the original raises here."""


class Turn(NamedTuple):
    """A message whose role is right; `i` counts as in the conversation that was given."""

    i: int
    role: str
    content: Any


def conversation(
    tokenizer: "Tokenizer", conversation: Conversation, max_tokens: int
) -> tuple[list[int], list[int]]:
    """(ids, mask), each cut to the first `max_tokens`.

    Raises:
        ConversationError: an unknown role, part or content, or roles out of turn.
    """
    return _rendered(tokenizer, _messages(conversation), max_tokens)


def for_completion(tokenizer: "Tokenizer", conversation: Conversation) -> list[int]:
    """The ids without the last message, then assistant_start; up to 2049 of them.

    Raises:
        ConversationError: the last message is not the assistant's, or one before it is wrong.
    """
    messages = _messages(conversation)
    if not messages or _field(messages, len(messages) - 1, "role") != "assistant":
        raise ConversationError(
            "the last message must be the assistant's: it is what will be written anew"
        )
    ids, _ = _rendered(tokenizer, messages[:-1], 2048)
    return [*ids, tokenizer.encode_special("<|assistant_start|>")]


def check_conversation(conversation: Conversation) -> None:
    """Raises ConversationError for whatever rendering would refuse."""
    for turn in _turns(_messages(conversation)):
        _parts(turn)


def visualize(
    tokenizer: "Tokenizer", ids: Sequence[int], mask: Sequence[int], with_token_id: bool
) -> str:
    """The tokens between bars, ANSI green where mask is 1, red elsewhere; ids in grey."""
    shown = []
    for i, learnt in zip(ids, mask, strict=True):
        colour = 92 if learnt else 91
        shown.append(f"\033[{colour}m{tokenizer.decode([i])}\033[0m")
        if with_token_id:
            shown.append(f"\033[90m({i})\033[0m")
    return "|".join(shown)


def _rendered(
    tokenizer: "Tokenizer", messages: Sequence[Any], max_tokens: int
) -> tuple[list[int], list[int]]:
    ids, mask = [tokenizer.get_bos_token_id()], [0]
    for turn in _turns(messages):
        for piece, learnt in _pieces(tokenizer, turn):
            ids += piece
            mask += [learnt] * len(piece)
    return ids[:max_tokens], mask[:max_tokens]


def _pieces(tokenizer: "Tokenizer", turn: Turn) -> Iterator[tuple[list[int], int]]:
    """(ids, learnt) of a turn. Parts are encoded one by one: no merge crosses their borders."""
    special = lambda name: [tokenizer.encode_special(name)]
    learnt = int(turn.role == "assistant")
    yield special(f"<|{turn.role}_start|>"), 0
    for kind, text in _parts(turn):
        before, after, written = PARTS[kind]
        ids = tokenizer.encode(text)
        if before:
            ids = special(before) + ids + special(after)
        yield ids, learnt and written
    yield special(f"<|{turn.role}_end|>"), learnt


def _parts(turn: Turn) -> list[tuple[str, str]]:
    """(kind, text) of each part of a turn; a plain str is one part of text."""
    if isinstance(turn.content, str):
        return [("text", turn.content)]
    if turn.role == "assistant" and isinstance(turn.content, list | tuple):
        return [_part(turn.i, j, part) for j, part in enumerate(turn.content)]
    expected = "a str or a list of parts" if turn.role == "assistant" else "a str"
    raise ConversationError(
        f"message {turn.i}: the {turn.role}'s content must be {expected}, "
        f"got {type(turn.content).__name__}: {turn.content!r:.60}"
    )


def _part(i: int, j: int, part: Any) -> tuple[str, str]:
    kind, text = (part.get(k) if isinstance(part, Mapping) else None for k in ("type", "text"))
    if kind in PARTS and isinstance(text, str):
        return kind, text
    kinds = ", ".join(PARTS)
    raise ConversationError(
        f"message {i}, part {j}: expected a type ({kinds}) and a text, got {part!r:.80}"
    )


def _turns(messages: Sequence[Any]) -> list[Turn]:
    """The messages with their roles checked, a system message merged into the first user's."""
    turns = [
        Turn(i, _field(messages, i, "role"), _field(messages, i, "content"))
        for i in range(len(messages))
    ]
    if turns and turns[0].role == "system":
        turns = [_with_system(turns), *turns[2:]]
    if not turns:
        raise ConversationError("a conversation needs at least one message")
    for n, turn in enumerate(turns):
        expected = "assistant" if n % 2 else "user"
        if turn.role != expected:
            raise ConversationError(
                f"message {turn.i}: expected the role {expected}, got {turn.role!r}; user and "
                "assistant take turns, the user begins, one system message may stand in front"
            )
    return turns


def _with_system(turns: Sequence[Turn]) -> Turn:
    if len(turns) < 2 or turns[1].role != "user":
        raise ConversationError("a system message must be followed by a user message")
    for turn in turns[:2]:
        if not isinstance(turn.content, str):
            raise ConversationError(
                f"message {turn.i}: the {turn.role}'s content must be a str, "
                f"got {type(turn.content).__name__}: {turn.content!r:.60}"
            )
    return turns[1]._replace(content=f"{turns[0].content}\n\n{turns[1].content}")


def _messages(conversation: Conversation) -> Sequence[Any]:
    messages = conversation.get("messages") if isinstance(conversation, Mapping) else None
    if isinstance(messages, list | tuple):
        return messages
    raise ConversationError(
        f'expected {{"messages": [{{"role": ..., "content": ...}}, ...]}}, got {conversation!r:.80}'
    )


def _field(messages: Sequence[Any], i: int, name: str) -> Any:
    message = messages[i]
    if isinstance(message, Mapping) and name in message:
        return message[name]
    raise ConversationError(f"message {i}: no {name!r} in {message!r:.80}")
