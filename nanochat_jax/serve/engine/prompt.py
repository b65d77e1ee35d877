"""From messages to a prompt that fits: whole turns are dropped, oldest first, and it is said."""

import dataclasses
from collections.abc import Sequence
from typing import Literal, NamedTuple

from nanochat_jax.tokenizer import Tokenizer

PART_TOKENS = {
    "python": ("<|python_start|>", "<|python_end|>"),
    "python_output": ("<|output_start|>", "<|output_end|>"),
}


class ContextFull(ValueError):
    """The last message alone is longer than the context; `tokens` is what it would need."""

    def __init__(self, tokens: int, context: int):
        self.tokens, self.context = tokens, context
        super().__init__(
            f"the last message needs {tokens} tokens with its markers, the model's context is "
            f"{context}: shorten the message"
        )


@dataclasses.dataclass(frozen=True)
class Message:
    """One message; an assistant's may be parts `{"type": text|python|python_output, ...}`."""

    role: Literal["system", "user", "assistant"]
    content: str | Sequence[dict]


class Prompt(NamedTuple):
    """The ids of a prompt, and how many messages were left out of it."""

    tokens: list[int]
    dropped: int


def fit_conversation(
    tokenizer: Tokenizer, messages: Sequence[Message], context: int, reserve: int
) -> Prompt:
    """The prompt for a reply to `messages`, leaving `reserve` tokens of the context free.

    The oldest whole turns go until the rest fits; leading system text always stays, in front of
    the first user message that is left. The last turn stays even if it eats into the reserve;
    raises ContextFull when it fills the context alone.
    """
    system, turns = _turns(messages)
    ids_of = _ids_of(tokenizer, [message for turn in turns for message in turn])
    encoded = [[_encode(tokenizer, message, ids_of) for message in turn] for turn in turns]
    lengths = [sum(map(len, turn)) for turn in encoded]
    # From where the turns alone would fit; only then the system text is put in front of one.
    last = len(turns) - 1
    enough = (i for i in range(last) if sum(lengths[i:]) + 2 + reserve <= context)
    for first in range(next(enough, last), len(turns)):
        ids = _join(tokenizer, system, turns[first], encoded[first:])
        if len(ids) + reserve <= context:
            break
    if len(ids) >= context:
        raise ContextFull(len(ids), context)
    return Prompt(ids, sum(map(len, turns[:first])))


def _turns(messages: Sequence[Message]) -> tuple[str, list[list[Message]]]:
    """The leading system text, and the rest cut before each user message.

    A later system message speaks through the user message that follows it.
    """
    turns: list[list[Message]] = []
    opening, said = [], []
    for message in messages:
        if message.role == "system":
            (said if turns else opening).append(message.content)
            continue
        if message.role == "user" and said:
            message = Message("user", "\n\n".join([*said, message.content]))
            said = []
        if message.role == "user" or not turns:
            turns.append([])
        turns[-1].append(message)
    if said or not turns:
        turns.append([Message("user", "\n\n".join([*([] if turns else opening), *said]))])
        opening = opening if len(turns) > 1 else []
    return "\n\n".join(opening), turns


def _ids_of(tokenizer: Tokenizer, messages: Sequence[Message]) -> dict[str, list[int]]:
    """The ids of every text in `messages`, encoded in one call: each lets other threads in."""
    texts = {
        text
        for message in messages
        for text in (
            [message.content]
            if isinstance(message.content, str)
            else [part["text"] for part in message.content]
        )
    }
    ordered = sorted(texts)
    return dict(zip(ordered, tokenizer.encode(ordered, num_threads=1), strict=True))


def _encode(tokenizer: Tokenizer, message: Message, ids_of: dict[str, list[int]]) -> list[int]:
    special = tokenizer.encode_special
    start, end = special(f"<|{message.role}_start|>"), special(f"<|{message.role}_end|>")
    if isinstance(message.content, str):
        return [start, *ids_of[message.content], end]
    ids = [start]
    for part in message.content:
        inner = ids_of[part["text"]]
        if part["type"] in PART_TOKENS:
            before, after = PART_TOKENS[part["type"]]
            inner = [special(before), *inner, special(after)]
        ids += inner
    return [*ids, end]


def _join(
    tokenizer: Tokenizer, system: str, turn: Sequence[Message], encoded: Sequence[list[list[int]]]
) -> list[int]:
    """bos, the turns with the system text in the first user message, and the assistant's start."""
    first, rest = encoded[0], encoded[1:]
    if system and turn[0].role == "user":
        merged = Message("user", f"{system}\n\n{turn[0].content}")
        first = [_encode(tokenizer, merged, _ids_of(tokenizer, [merged])), *first[1:]]
    elif system:
        alone = Message("user", system)
        first = [_encode(tokenizer, alone, _ids_of(tokenizer, [alone])), *first]
    body = [token for message in [*first, *(m for t in rest for m in t)] for token in message]
    return [
        tokenizer.get_bos_token_id(),
        *body,
        tokenizer.encode_special("<|assistant_start|>"),
    ]
