"""What the API answers, as pydantic models: what the OpenAPI document says of each route.

The routes write these objects themselves; a test holds document and answers together.
"""

from typing import Literal

from pydantic import BaseModel, ConfigDict

REASONS = {
    400: "the request is not valid",
    401: "a bearer key is needed",
    404: "there is no such model",
    413: "the body is too large",
    429: "too many requests, or as many wait as may wait",
    499: "the client left before the answer was ready",
    500: "the server failed on this request",
    503: "loading, failed or shutting down",
}


class Open(BaseModel):
    """Fields beside the named ones may come."""

    model_config = ConfigDict(extra="allow")


class Error(BaseModel):
    """OpenAI's error object."""

    message: str
    type: Literal["invalid_request_error", "rate_limit_error", "server_error"]
    param: str | None
    code: str | None


class ErrorBody(BaseModel):
    """Every refusal. `detail` repeats the message at the original's own endpoint."""

    error: Error
    detail: str | None = None


class PromptDetails(BaseModel):
    cached_tokens: int


class Usage(BaseModel):
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptDetails


class ReplyPart(BaseModel):
    type: Literal["text", "python", "python_output"]
    text: str


class ReplyMessage(BaseModel):
    """`content` is what was said; `parts`, where tools were called, tells calls from speech."""

    role: Literal["assistant"]
    content: str
    refusal: None
    parts: list[ReplyPart] | None = None


class TokenScore(BaseModel):
    token: str
    logprob: float
    bytes: list[int]


class ChosenToken(TokenScore):
    """`forced`: a tool wrote it, not the model."""

    top_logprobs: list[TokenScore]
    forced: bool


class ChatLogprobs(BaseModel):
    content: list[ChosenToken]
    refusal: None


class ChatChoice(BaseModel):
    index: int
    message: ReplyMessage
    logprobs: ChatLogprobs | None
    finish_reason: Literal["stop", "length"]


class Notes(BaseModel):
    """What was left out of the prompt, and the seed that repeats the reply."""

    dropped_messages: int
    seed: int


class Answer(BaseModel):
    id: str
    created: int
    model: str
    system_fingerprint: None
    usage: Usage


class ChatCompletion(Answer):
    """POST /v1/chat/completions without `stream`."""

    object: Literal["chat.completion"]
    choices: list[ChatChoice]
    nanochat: Notes


class TextLogprobs(BaseModel):
    tokens: list[str]
    token_logprobs: list[float | None]
    top_logprobs: list[dict[str, float] | None]
    text_offset: list[int]


class TextChoice(BaseModel):
    index: int
    text: str
    logprobs: TextLogprobs | None
    finish_reason: Literal["stop", "length"]


class Completion(Answer):
    """POST /v1/completions without `stream`."""

    object: Literal["text_completion"]
    choices: list[TextChoice]


class ModelCard(BaseModel):
    id: str
    object: Literal["model"]
    created: int
    owned_by: str
    max_model_len: int


class ModelList(BaseModel):
    object: Literal["list"]
    data: list[ModelCard]


class Tokens(BaseModel):
    """POST /tokenize."""

    tokens: list[int]
    count: int
    max_model_len: int


class Text(BaseModel):
    """POST /detokenize."""

    prompt: str


class TokenizerInfo(Open):
    """GET /tokenizer_info; `hash` names the vocabulary."""

    vocab_size: int
    bos_token: str
    eos_token: str
    special_tokens: list[str]
    model_max_length: int
    hash: str


class Health(Open):
    """GET /health."""

    status: Literal["ok", "loading", "failed"]
    ready: bool
    num_gpus: int
    available_workers: int


class Worker(Open):
    gpu_id: int
    device: str


class Stats(Open):
    """GET /stats."""

    total_workers: int
    available_workers: int
    busy_workers: int
    workers: list[Worker]


def refusals(*statuses: int) -> dict[int | str, dict]:
    """What a route may answer besides 200, for its `responses`."""
    return {status: {"model": ErrorBody, "description": REASONS[status]} for status in statuses}
