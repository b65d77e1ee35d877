"""From messages to a prompt that fits: whole turns are dropped, oldest first, and are counted."""

import itertools
from collections.abc import Sequence
from typing import NamedTuple

from nanochat_jax.serve.engine.requests import ROOM
from nanochat_jax.tokenizer import Tokenizer
from nanochat_jax.tokenizer.chat_format import (
    ASSISTANT_END,
    ASSISTANT_START,
    PYTHON_END,
    Message,
    encode_message,
    parts_of,
    with_system,
)


class ContextFull(ValueError):
    """The last message alone is longer than the context; `tokens` is what it would need."""

    def __init__(self, tokens: int, context: int):
        self.tokens, self.context = tokens, context
        super().__init__(
            f"the last message is too long: it needs {tokens} tokens with its markers, and the "
            f"model's context is {context}; shorten it"
        )


class Prompt(NamedTuple):
    """The ids of a prompt, and how many messages were left out of it."""

    tokens: list[int]
    dropped: int


def fit_conversation(
    tokenizer: Tokenizer, messages: Sequence[Message], context: int, max_tokens: int | None,
    go_on: bool = False,
) -> Prompt:  # fmt: skip
    """The prompt for a reply to `messages`, leaving `max_tokens` of the context free for it, but at
    most a quarter: who asks for as much as there is (None, -1) would lose the history. `go_on`: the
    last message is a reply that was cut, which the prompt leaves open for more of it.

    Roles may come in any order, not in turn as in training: clients of the API send what they like.
    The oldest whole turns go until the rest fits; leading system text always stays, in front of the
    first user message that is left. The last turn stays even if it eats into the reserve; raises
    ContextFull when it fills the context alone.
    """
    reserve = context // 4 if max_tokens in ROOM else min(max_tokens, context // 4)
    system, turns = _turns(messages)
    # All texts in one call, during which other threads run.
    parts = {part for turn in turns for message in turn for part in parts_of(message.content)}
    texts = sorted({part.text for part in parts})
    ids_of = dict(zip(texts, tokenizer.encode(texts, num_threads=1), strict=True))
    encode = lambda message: encode_message(tokenizer, message, ids_of.__getitem__)[0]
    encoded = [[encode(message) for message in turn] for turn in turns]
    # From where the turns alone would fit. To put the system text in front of a turn encodes both
    # again, which is not tried where it cannot fit.
    sizes, last = [sum(map(len, turn)) for turn in encoded], len(turns) - 1
    enough = (i for i in range(last) if sum(sizes[i:]) + 2 + reserve <= context)
    for first in range(next(enough, last), len(turns)):
        ids = _join(tokenizer, system, turns[first][0], encoded[first:])
        ids = _opened(tokenizer, ids) if go_on else ids
        if len(ids) + reserve <= context:
            break
    # Not cut: half a question has another answer, and nobody would know which half was read.
    if len(ids) >= context:
        raise ContextFull(len(ids), context)
    return Prompt(ids, sum(map(len, turns[:first])))


def _turns(messages: Sequence[Message]) -> tuple[str, list[list[Message]]]:
    """The leading system text, and the rest cut before each user message."""
    turns: list[list[Message]] = []
    leading, later = [], []
    for message in messages:
        if message.role == "system":
            if message.content:  # clients send an empty one where they have none
                (later if turns else leading).append(message.content)
            continue
        # What the format has no place for, later system text, is kept where the model will read it:
        # right before the user's next words.
        if message.role == "user" and later:
            message, later = with_system("\n\n".join(later), message), []
        if message.role == "user" or not turns:
            turns.append([])
        turns[-1].append(message)
    if not turns:  # system text alone is what the user says
        leading, later = [], leading
    if later or not turns:
        turns.append([Message("user", "\n\n".join(later))])
    return "\n\n".join(leading), turns


def _join(
    tokenizer: Tokenizer, system: str, opening: Message, turns: Sequence[Sequence[list[int]]]
) -> list[int]:
    """bos, the turns with the system text in front of their opening message, assistant_start."""
    encoded = [message for turn in turns for message in turn]
    if system:
        told = Message("user", system)
        if opening.role == "user":
            told, encoded = with_system(system, opening), encoded[1:]
        encoded.insert(0, encode_message(tokenizer, told)[0])
    body = itertools.chain.from_iterable(encoded)
    return [tokenizer.get_bos_token_id(), *body, tokenizer.encode_special(ASSISTANT_START)]


def _opened(tokenizer: Tokenizer, ids: list[int]) -> list[int]:
    """A prompt that ends within its last reply; also within the tool call that the reply ends with.

    Whether that call had been closed is not known: closed again, its result comes again.
    """
    ends = [tokenizer.encode_special(marker) for marker in (PYTHON_END, ASSISTANT_END)]
    ids = ids[:-1]  # where a further reply would begin
    while ids[-1] in ends:
        ids.pop()
    return ids
