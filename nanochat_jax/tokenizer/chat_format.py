"""The chat format, and its only home: markers, parts, messages, their check, encoder and parser.

A conversation is `{"messages": [{"role": ..., "content": ...}, ...]}`, user and assistant in turn,
one system message in front if wanted. An assistant's content is a str, or a list of parts
`{"type": "text" | "python" | "python_output", "text": ...}`. A question and its answer become

    <|bos|><|user_start|>2+3?<|user_end|><|assistant_start|><|python_start|>2+3<|python_end|>
    <|output_start|>5<|output_end|>It is 5.<|assistant_end|>

with each marker one token. Source: nanochat `nanochat/tokenizer.py`, restated.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple, Protocol

BOS = "<|bos|>"
USER_START, USER_END = "<|user_start|>", "<|user_end|>"
ASSISTANT_START, ASSISTANT_END = "<|assistant_start|>", "<|assistant_end|>"
PYTHON_START, PYTHON_END = "<|python_start|>", "<|python_end|>"
OUTPUT_START, OUTPUT_END = "<|output_start|>", "<|output_end|>"

# In the original's order, since their ids follow the merges in it: a tenth token, or another order,
# would make a vocabulary that the original's checkpoints and tools do not know.
SPECIAL_TOKENS = (
    BOS, USER_START, USER_END, ASSISTANT_START, ASSISTANT_END,
    PYTHON_START, PYTHON_END, OUTPUT_START, OUTPUT_END,
)  # fmt: skip

Role = Literal["system", "user", "assistant"]
PartKind = Literal["text", "python", "python_output"]
Conversation = Mapping[str, Any]


# The markers around a part of each kind, and around a turn.
PARTS: dict[PartKind, tuple[str, str]] = {
    "text": ("", ""), "python": (PYTHON_START, PYTHON_END),
    "python_output": (OUTPUT_START, OUTPUT_END),
}  # fmt: skip
TURNS = {"user": (USER_START, USER_END), "assistant": (ASSISTANT_START, ASSISTANT_END)}
# Never supervised: when the model is used, the tool writes these tokens. A model trained on them
# would learn to make results up.
FORCED: PartKind = "python_output"

# Marker -> the kind of what follows it in a reply. All other special tokens change nothing there.
KIND_AFTER: dict[str, PartKind] = {start: kind for kind, (start, _) in PARTS.items()}
KIND_AFTER |= {end: "text" for _, end in PARTS.values()}
_MARKED = re.compile(
    "|".join(f"{re.escape(start)}(?P<{kind}>.*?){re.escape(end)}"
             for kind, (start, end) in PARTS.items() if start), re.DOTALL,
)  # fmt: skip


class ConversationError(ValueError, AssertionError, IndexError):
    """A conversation out of format. Also of the types that the original raises here."""


class Part(NamedTuple):
    """A piece of a message, of one kind."""

    kind: PartKind
    text: str


class Message(NamedTuple):
    """One message; an assistant's content may be parts `{"type": ..., "text": ...}`."""

    role: Role
    content: str | Sequence[Mapping[str, str]]


class Vocabulary(Protocol):
    """What the encoder needs of a tokenizer."""

    def encode(self, text: str) -> list[int]: ...
    def encode_special(self, token: str) -> int: ...
    def get_bos_token_id(self) -> int: ...


def parts_of(content: str | Sequence[Mapping[str, str]]) -> list[Part]:
    """A message's content as parts; a str is one part of text."""
    if isinstance(content, str):
        return [Part("text", content)]
    return [Part(part["type"], part["text"]) for part in content]


def exchange(question: str, answer: str | list[dict[str, str]], **extras: Any) -> dict[str, Any]:
    """The conversation of one question and its answer, with `extras` beside its messages."""
    messages = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    return {"messages": messages, **extras}


def messages_of(conversation: Any) -> Sequence[Any]:
    """The messages of `{"messages": [...]}`, or the bare list, not checked yet."""
    if isinstance(conversation, Mapping) and "messages" in conversation:
        conversation = conversation["messages"]
    if isinstance(conversation, list | tuple):
        return conversation
    keys = list(conversation) if isinstance(conversation, Mapping) else None
    got = f"an object with keys {keys}" if keys else f"{conversation!r:.80}"
    raise ConversationError(f'expected {{"messages": [...]}} or a list of messages, got {got}')


def check(messages: Sequence[Any], at_least: int = 1) -> list[Message]:
    """The messages, which are [system,] user, assistant, user, ... with contents that fit.

    `at_least` so many, a system message not counted: 2 where they are to train on, since a question
    alone supervises no token. Raises ConversationError naming the message and what is wrong.
    """
    checked = [
        Message(_field(i, message, "role"), _field(i, message, "content"))
        for i, message in enumerate(messages)
    ]
    start = int(bool(checked) and checked[0].role == "system")
    if len(checked) - start < at_least:
        s = "s" * (at_least > 1)
        raise ConversationError(
            f"expected at least {at_least} message{s} of user and assistant, got {messages!r:.80}"
        )
    for i, message in enumerate(checked):
        expected = ("user", "assistant")[(i - start) % 2]
        if i >= start and message.role != expected:
            raise ConversationError(
                f"message {i}: expected the role {expected}, got {message.role!r}; turns "
                "alternate, the user begins, one system message may stand in front"
            )
        if not isinstance(message.content, str):
            _check_parts(i, message)
    return checked


def _check_parts(i: int, message: Message) -> None:
    may_be = message.role == "assistant"
    if not (may_be and isinstance(message.content, list | tuple)):
        raise ConversationError(
            f"message {i}: the {message.role}'s content must be a str"
            f"{' or a list of parts' * may_be}, got {type(message.content).__name__}: "
            f"{message.content!r:.60}"
        )
    for j, part in enumerate(message.content):
        kind, text = (part.get(k) if isinstance(part, Mapping) else None for k in ("type", "text"))
        if kind not in PARTS or not isinstance(text, str):
            raise ConversationError(
                f"message {i}, part {j}: expected a type ({', '.join(PARTS)}) and a text, "
                f"got {part!r:.80}"
            )


def _field(i: int, message: Any, name: str) -> Any:
    if isinstance(message, Mapping) and name in message:
        return message[name]
    raise ConversationError(f"message {i}: no {name!r} in {message!r:.80}")


def render(
    vocabulary: Vocabulary, conversation: Conversation | Sequence[Any], max_tokens: int = 2048
) -> tuple[list[int], list[int]]:
    """(ids, mask), cut to `max_tokens`; mask 1 where a token is supervised. Raises as `check`."""
    checked = check(messages_of(conversation))
    if checked[0].role == "system":
        checked = [with_system(checked[0].content, checked[1]), *checked[2:]]
    ids, mask = [vocabulary.get_bos_token_id()], [0]
    for message in checked:
        more, supervised = encode_message(vocabulary, message)
        ids += more
        mask += supervised
    # Cut, not refused: one long conversation decides how wide a batch of padded rows is, and so how
    # much memory it takes. The original cuts at 2048 for that.
    return ids[:max_tokens], mask[:max_tokens]


def render_for_completion(vocabulary: Vocabulary, conversation: Conversation) -> list[int]:
    """The ids up to where the last message is to be written anew, assistant_start; at most 2049.

    Raises ConversationError: the last message is not the assistant's, or one before it is wrong.
    """
    messages = messages_of(conversation)
    if not messages or _field(len(messages) - 1, messages[-1], "role") != "assistant":
        raise ConversationError("the last message must be the assistant's: it is written anew")
    # The original cuts prompts where it cuts training rows, at its context of 2048, so the model
    # may be given half a question. The engine's own prompts drop whole turns instead.
    ids, _ = render(vocabulary, messages[:-1])
    return [*ids, vocabulary.encode_special(ASSISTANT_START)]


def encode_message(
    vocabulary: Vocabulary, message: Message, encode: Callable[[str], list[int]] | None = None
) -> tuple[list[int], list[int]]:
    """(ids, mask) of one message that was checked, a user's or an assistant's, markers included.

    `encode` gives the ids of a text, where the caller has encoded all texts at once already.
    """
    encode, special = encode or vocabulary.encode, vocabulary.encode_special
    around = lambda markers, ids: [special(markers[0]), *ids, special(markers[1])]
    supervised = int(message.role == "assistant")
    ids, mask = [], []
    for kind, text in parts_of(message.content):
        # Parts are encoded one by one, so that no merge crosses the border of two.
        inner = encode(text) if kind == "text" else around(PARTS[kind], encode(text))
        ids += inner
        mask += [supervised * (kind != FORCED)] * len(inner)
    # assistant_start is the prompt's last token when the model is used; assistant_end is the
    # model's to write, or its replies would never end.
    return around(TURNS[message.role], ids), [0, *mask, supervised]


def with_system(system: str, message: Message) -> Message:
    """The user's message with the system text in front: the format has no marker for a system."""
    return Message("user", f"{system}\n\n{message.content}")


def stop_ids(vocabulary: Vocabulary) -> tuple[int, int]:
    """The tokens that end a reply: assistant_end, and bos, by which a base model goes on to the
    next document: it has never seen assistant_end."""
    return vocabulary.encode_special(ASSISTANT_END), vocabulary.get_bos_token_id()


def parse(text: str) -> list[Part]:
    """The parts of a reply that was decoded to text, markers and all; a half call stays text.

    Text cannot tell a marker from its letters, which a user may type; where that matters, read
    the ids (`KIND_AFTER`).
    """
    parts, end = [], 0
    for match in _MARKED.finditer(text):
        before = Part("text", text[end : match.start()])
        parts += [before, Part(match.lastgroup, match[match.lastgroup])]
        end = match.end()
    return [part for part in [*parts, Part("text", text[end:])] if part != Part("text", "")]


def calls_and_text(parts: Sequence[Part]) -> tuple[list[str], str]:
    """What an answer has a tool run, call by call, and what it says itself, all in one."""
    of_kind = lambda kind: [part.text for part in parts if part.kind == kind]
    return of_kind("python"), "".join(of_kind("text")).strip()


def markers_between(before: PartKind, after: PartKind) -> str:
    """What stands in a text where a part of kind `before` ends and one of `after` begins."""
    return PARTS[before][1] + PARTS[after][0]
