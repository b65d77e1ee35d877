"""What the API answers, as pydantic models: routes return them, the OpenAPI document shows them.

A field that was not set is not sent (`exclude_unset`): OpenAI's clients tell absent from null.
"""

import time
import uuid
from typing import Any, Literal

from pydantic import BaseModel

from nanochat_jax.serve.server.schemas import MAX_MESSAGE_CHARS, MAX_MESSAGES, MAX_TOTAL_CHARS
from nanochat_jax.tokenizer.chat_format import PartKind

DESCRIPTIONS = {
    400: "the request is not valid",
    401: "a bearer key is needed",
    404: "there is no such model",
    413: "the body is too large",
    429: "too many requests, or as many wait as may wait",
    499: "the client left before the answer was ready",
    500: "the server failed on this request",
    503: "loading, failed or shutting down",
}

FinishReason = Literal["stop", "length"]


class Error(BaseModel):
    message: str
    type: Literal["invalid_request_error", "rate_limit_error", "server_error"]
    param: str | None
    code: str | None


class ErrorBody(BaseModel):
    """Every refusal. `detail` repeats the message at the original's own endpoint."""

    error: Error
    detail: str | None = None


def refusals(*statuses: int) -> dict[int | str, dict]:
    """What a route may answer besides 200, for its `responses`."""
    return {
        status: {"model": ErrorBody, "description": DESCRIPTIONS[status]} for status in statuses
    }


# FastAPI documents its own 422 for every route that reads something, unless the route says what
# all of 4XX look like. We answer 400 there, as OpenAI does.
ANY_REFUSAL = {"4XX": {"model": ErrorBody, "description": "any other refusal"}}


class PromptDetails(BaseModel):
    """`cached_tokens` of the prompt were read from a slot's cache, not computed again."""

    cached_tokens: int


class Usage(BaseModel):
    """Tokens of a whole request; a prompt counts once, however many choices it gets."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptDetails


class Timings(BaseModel):
    """How long the server took for a request, by llama.cpp's names; waiting for a slot not counted.

    `prompt_n` tokens were read (`cache_n` more did not have to be), `predicted_n` written.
    """

    cache_n: int
    prompt_n: int
    prompt_ms: float
    prompt_per_second: float
    predicted_n: int
    predicted_ms: float
    predicted_per_second: float


class Envelope(BaseModel):
    """What all chunks of a stream, and every whole answer, have in common."""

    id: str
    created: int  # seconds since 1970
    model: str
    system_fingerprint: None


def new_envelope(prefix: str, kind: str, model_id: str) -> dict[str, Any]:
    """The fields that are the same in all that answers one request."""
    # `object` too, though its model allows one value only: a field left to its default is not sent.
    return {
        "id": prefix + uuid.uuid4().hex, "object": kind, "created": int(time.time()),
        "model": model_id, "system_fingerprint": None,
    }  # fmt: skip


class ReplyPart(BaseModel):
    """Text of one kind: speech, a call of the tool, or what the tool returned."""

    type: PartKind
    text: str


class ReplyMessage(BaseModel):
    """`content` is the text alone; `parts`, where a tool was called, hold calls and results too."""

    role: Literal["assistant"]
    content: str
    refusal: None
    parts: list[ReplyPart] | None = None


class TokenLogprob(BaseModel):
    """One token and its log-probability, in nats."""

    token: str
    logprob: float
    bytes: list[int]  # a token may be half a character, which `token` cannot show


class ReplyLogprob(TokenLogprob):
    """`forced`: a tool wrote it, not the model."""

    top_logprobs: list[TokenLogprob]
    forced: bool


class ChatLogprobs(BaseModel):
    """A score for each token, those that show no text included."""

    content: list[ReplyLogprob]
    refusal: None


class ChatChoice(BaseModel):
    index: int
    message: ReplyMessage
    logprobs: ChatLogprobs | None
    finish_reason: FinishReason


class Extras(BaseModel):
    """What was left out of the prompt, and the seed that repeats the reply."""

    dropped_messages: int
    seed: int


class ChatCompletion(Envelope):
    object: Literal["chat.completion"]
    choices: list[ChatChoice]
    usage: Usage
    timings: Timings
    nanochat: Extras


class ChatDelta(BaseModel):
    """What is new: the role at first, then text, or a part of a tool call."""

    role: Literal["assistant"] | None = None
    content: str | None = None
    part: ReplyPart | None = None


class ChatChunkChoice(BaseModel):
    """What is new in one of `n` replies; its last chunk has an empty delta."""

    index: int
    delta: ChatDelta
    logprobs: ChatLogprobs | None
    finish_reason: FinishReason | None


class ChatChunk(Envelope):
    """An event of a streamed chat; the last one has `usage`, `timings` and no choice, where usage
    was wanted."""

    object: Literal["chat.completion.chunk"]
    choices: list[ChatChunkChoice]
    usage: Usage | None = None
    timings: Timings | None = None
    nanochat: Extras | None = None


class TextLogprobs(BaseModel):
    """Four lists as long as the tokens; the first token of a prompt has no score."""

    tokens: list[str]
    token_logprobs: list[float | None]
    top_logprobs: list[dict[str, float] | None]
    text_offset: list[int]


class TextChoice(BaseModel):
    """One reply, behind its prompt where `echo` was wanted; in a stream what is new of it."""

    index: int
    text: str
    logprobs: TextLogprobs | None
    finish_reason: FinishReason | None


class TextCompletion(Envelope):
    """POST /v1/completions, whole or an event of the stream: OpenAI has one object for both."""

    object: Literal["text_completion"]
    choices: list[TextChoice]
    usage: Usage | None = None


class OriginalChunk(BaseModel):
    """An event of the original's stream: new text and the number of the GPU, or the end."""

    token: str | None = None
    gpu: int | None = None
    done: bool | None = None


class Limits(BaseModel):
    """What one chat request may hold, in characters of Unicode and in messages."""

    message_characters: int = MAX_MESSAGE_CHARS
    chat_characters: int = MAX_TOTAL_CHARS
    messages: int = MAX_MESSAGES


class ModelCard(BaseModel):
    """A model of this server; `max_model_len` is its context in tokens, `parent` the one that its
    adapters stand beside: both as vLLM says them."""

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str = "nanochat_jax"
    max_model_len: int
    parent: str | None = None
    limits: Limits = Limits()


class ModelList(BaseModel):
    object: Literal["list"] = "list"
    data: list[ModelCard]


class TokenIds(BaseModel):
    tokens: list[int]
    count: int
    max_model_len: int


class DecodedText(BaseModel):
    prompt: str


class TokenizerInfo(BaseModel):
    """GET /tokenizer_info; `hash` names the vocabulary."""

    tokenizer_class: str = "PreTrainedTokenizerFast"
    vocab_size: int
    bos_token: str
    eos_token: str
    special_tokens: list[str]
    model_max_length: int
    hash: str


HealthStatus = Literal["ok", "loading", "draining", "failed"]


class Health(BaseModel):
    """GET /health; `progress` is the share of the programs that are compiled, while it loads."""

    status: HealthStatus
    ready: bool
    num_gpus: int
    available_workers: int
    progress: float | None = None


class Worker(BaseModel):
    gpu_id: int
    device: str


class Stats(BaseModel):
    """GET /stats: how busy the engine is. What is a slot here is a worker in the original."""

    total_workers: int
    available_workers: int
    busy_workers: int
    workers: list[Worker]
    model: str
    context: int
    waiting: int
    queue_limit: int
    compilations: int
    cache_tokens_per_row: int
    cache_bytes: int
    weight_bytes: int
    int8: bool
    uptime_s: float
    prompt_tokens: int
    cached_prompt_tokens: int
    completion_tokens: int
