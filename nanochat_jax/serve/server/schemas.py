"""What the API accepts, as pydantic models: OpenAI's fields; unknown ones are ignored."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

import pydantic
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, WrapValidator

from nanochat_jax.config.decoding import ADJUSTMENTS, BIAS, MAX_BIASES
from nanochat_jax.tokenizer.chat_format import Message, PartKind, parse

# The original's limits.
MAX_MESSAGES = 500
MAX_MESSAGE_CHARS = 8000
MAX_TOTAL_CHARS = 32000
MAX_TOKENS = 4096
# Ours: without any, one request could take every slot, or the memory.
MAX_CHOICES = 16
MAX_PROMPTS = 256
MAX_STOPS = 16  # OpenAI takes four; an evaluation sends a list of its own, and its program's
MAX_TEXT = 2**20
MAX_SEED = 2**63

Role = Literal["system", "developer", "user", "assistant"]
SYSTEM = ("system", "developer")
Token = Annotated[int, Field(ge=0)]
# 0 as the original has it, -1 as vLLM does: all tokens.
TopK = Annotated[int, Field(ge=-1, le=200)]
# No upper limit: what does not fit is not written. -1, as vLLM has it: as many as fit.
Budget = Annotated[int, Field(ge=-1)]
Stop = Annotated[str, Field(min_length=1, max_length=256)]


def _not_nothing(max_tokens: int) -> int:
    if max_tokens == 0:
        raise ValueError("give 1 or more, or -1 for as many as fit")
    return max_tokens


def adjustment(name: str):
    """The type of a field of that name, with its range."""
    return Annotated[float, Field(ge=ADJUSTMENTS[name].low, le=ADJUSTMENTS[name].high)] | None


ReplyBudget = Annotated[Budget, AfterValidator(_not_nothing)]


def pick(value, default):
    """`value`, or `default` where a request left it out."""
    return default if value is None else value


class Strict(BaseModel):
    """No coercion between types, no infinities; unknown fields are ignored."""

    # Clients send OpenAI's newer fields whether a server knows them or not.
    model_config = ConfigDict(extra="ignore", strict=True, allow_inf_nan=False)


def forms(description: str) -> WrapValidator:
    """A validator that says in one sentence what a field takes that may have several forms.

    pydantic complains of every form in turn, of which a client would see the first.
    """

    def check(value, handler):
        try:
            return handler(value)
        except pydantic.ValidationError:
            raise ValueError(f"give {description}") from None

    return WrapValidator(check)


def some(kind: type, most: int | None = None):
    """The type of a list of 1 to `most` of a kind."""
    return Annotated[list[kind], Field(min_length=1, max_length=most)]


# By token ids, which are strings in JSON.
Biases = Annotated[
    dict[
        Annotated[str, Field(pattern="^[0-9]{1,9}$")],
        Annotated[float, Field(ge=BIAS.low, le=BIAS.high)],
    ],
    Field(max_length=MAX_BIASES),
    forms(
        f"up to {MAX_BIASES} token ids, each with a number from {BIAS.low:g} to {BIAS.high:g}: "
        '{"50256": -100}'
    ),
]


def stop_type(most: int):
    """The type of a field of stop strings."""
    said = forms(f"a text of 1 to 256 characters, or a list of up to {most}")
    return Annotated[Stop | Annotated[list[Stop], Field(max_length=most)] | None, said]


class ContentPart(Strict):
    """A content part; `python` and `python_output` are a reply's tool call and its result."""

    type: PartKind
    text: str


class ChatMessage(Strict):
    """One message of a conversation."""

    role: Role
    content: Annotated[
        str | list[ContentPart] | None,
        forms('text, or a list of parts {"type": "text", "text": ...}'),
    ] = None

    def message(self) -> Message:
        """As the engine's side knows it: text, or an assistant's parts."""
        # OpenAI renamed system to developer for newer models; the chat format has one of them.
        role = "system" if self.role in SYSTEM else self.role
        if isinstance(self.content, str) or self.content is None:
            return Message(role, self.content or "")
        if role == "assistant":
            return Message(role, [part.model_dump() for part in self.content])
        return Message(role, "".join(part.text for part in self.content))

    def length(self) -> int:
        """Characters of the content."""
        if isinstance(self.content, list):
            return sum(len(part.text) for part in self.content)
        return len(self.content or "")


class OriginalMessage(ChatMessage):
    """A message as the original takes it; its page sends tool calls as text with their markers."""

    role: Literal["user", "assistant"]
    content: Annotated[str, Field(min_length=1, max_length=MAX_MESSAGE_CHARS)]

    def message(self) -> Message:
        """As the engine's side knows it; tool calls are parts again."""
        if self.role == "user":
            return Message("user", self.content)
        parts = [{"type": part.kind, "text": part.text} for part in parse(self.content)]
        return Message("assistant", parts)


def _within_limits(messages: list[ChatMessage]) -> list[ChatMessage]:
    if all(message.role in SYSTEM and not message.length() for message in messages):
        raise ValueError("no message says anything")
    for i, message in enumerate(messages):
        if message.length() == 0 and message.role == "user":
            raise ValueError(f"message {i} is empty")
        if message.length() > MAX_MESSAGE_CHARS:
            most = f"this server takes {MAX_MESSAGE_CHARS}: shorten it"
            raise ValueError(f"message {i} has {message.length()} characters, {most}")
    if (length := sum(message.length() for message in messages)) > MAX_TOTAL_CHARS:
        most = f"this server takes {MAX_TOTAL_CHARS}: leave its beginning out"
        raise ValueError(f"the conversation has {length} characters, {most}")
    return messages


class StreamOptions(Strict):
    include_usage: bool | None = None


class SamplingFields(Strict):
    """What chat and plain completions share; None means the server's default."""

    model: Annotated[str, Field(examples=["nanochat"])] | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(ge=0, le=1)] | None = None
    top_k: TopK | None = None
    n: Annotated[int, Field(ge=1, le=MAX_CHOICES)] | None = None
    repetition_penalty: adjustment("repetition_penalty") = None
    presence_penalty: adjustment("presence_penalty") = None
    frequency_penalty: adjustment("frequency_penalty") = None
    min_p: adjustment("min_p") = None
    logit_bias: Biases | None = None
    stop: stop_type(4) = None
    seed: Annotated[int, Field(ge=-MAX_SEED, lt=MAX_SEED)] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    max_tokens: int | None = None

    def choices(self) -> int:
        """How many replies to each prompt."""
        return self.n or 1

    def stops(self) -> list[str]:
        """The stop strings as a list."""
        return [self.stop] if isinstance(self.stop, str) else list(self.stop or ())

    def adjustments(self, defaults: Mapping[str, float]) -> dict[str, Any]:
        """Fields of the engine's request that move logits; what is left out is the default."""
        own = {name: pick(getattr(self, name), defaults[name]) for name in ADJUSTMENTS}
        return {**own, "logit_bias": self.logit_bias or {}}

    def include_usage(self) -> bool:
        """Whether a stream ends with a usage chunk."""
        return bool(self.stream_options and self.stream_options.include_usage)


class ChatRequest(SamplingFields):
    """POST /v1/chat/completions."""

    messages: Annotated[
        some(ChatMessage, MAX_MESSAGES),
        Field(examples=[[{"role": "user", "content": "Who are you?"}]]),
        AfterValidator(_within_limits),
    ]
    max_tokens: ReplyBudget | None = None
    max_completion_tokens: ReplyBudget | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    continue_final_message: bool | None = None
    """the last message is a reply that was cut: write on in it, as vLLM does"""

    @pydantic.model_validator(mode="after")
    def _several_fields(self):
        if self.top_logprobs and not self.logprobs:
            raise ValueError("top_logprobs needs logprobs: true")
        if self.continue_final_message and self.messages[-1].role != "assistant":
            raise ValueError("continue_final_message: the last message must be the assistant's")
        self.max_tokens = self.max_completion_tokens or self.max_tokens  # its newer name wins
        return self

    def alternatives(self) -> int | None:
        """How many likely tokens to show beside each of a reply; None: no scores at all."""
        return (self.top_logprobs or 0) if self.logprobs else None

    def opening(self) -> PartKind:
        """Of what kind the reply's first words are: a call goes on where the last message ends in
        one."""
        last = self.messages[-1].content if self.continue_final_message else None
        in_call = isinstance(last, list) and last and last[-1].type == "python"
        return "python" if in_call else "text"


class CompletionRequest(SamplingFields):
    """POST /v1/completions."""

    prompt: Annotated[
        str | some(str, MAX_PROMPTS) | some(Token) | some(some(Token), MAX_PROMPTS),
        forms(f"text, token ids, or a list of 1 to {MAX_PROMPTS} of either; no empty list"),
    ]
    max_tokens: Budget | None = None
    stop: stop_type(MAX_STOPS) = None
    echo: bool | None = None
    logprobs: Annotated[int, Field(ge=0, le=20)] | None = None

    def prompts(self) -> list[str | list[int]]:
        """The prompts as a list, each text or token ids."""
        if isinstance(self.prompt, str) or isinstance(self.prompt[0], int):
            return [self.prompt]
        return list(self.prompt)


class TokenizeRequest(Strict):
    """POST /tokenize: plain text (`prompt`), or the prompt that `messages` become.

    Text that is the name of a special token and nothing else is that token; `add_special_tokens`
    puts the bos before text, as `/v1/completions` does.
    """

    prompt: Annotated[str, Field(max_length=MAX_TEXT)] | None = None
    add_special_tokens: bool = False
    messages: some(ChatMessage, MAX_MESSAGES) | None = None

    @pydantic.model_validator(mode="after")
    def _one_of_two(self):
        if (self.prompt is None) == (self.messages is None):
            raise ValueError("give either prompt or messages")
        return self


class DetokenizeRequest(Strict):
    """POST /detokenize."""

    tokens: Annotated[list[Token], Field(max_length=MAX_TEXT)]


class OriginalRequest(Strict):
    """POST /chat/completions, with the original's limits, in the order in which it checks them."""

    messages: Annotated[
        some(OriginalMessage, MAX_MESSAGES),
        forms(
            f"at least one message and at most {MAX_MESSAGES}, each with the role user or "
            f"assistant and text of 1 to {MAX_MESSAGE_CHARS} characters"
        ),
        AfterValidator(_within_limits),
    ]
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_k: TopK | None = None
    max_tokens: Annotated[int, Field(ge=1, le=MAX_TOKENS)] | None = None
