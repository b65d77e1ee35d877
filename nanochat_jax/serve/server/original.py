"""POST /chat/completions as the original serves it, so that its page and scripts go on working.

Source: karpathy/nanochat scripts/chat_web.py.
"""

from collections.abc import AsyncGenerator

from fastapi import APIRouter
from fastapi.responses import JSONResponse, Response, StreamingResponse

from nanochat_jax.serve.engine.requests import Request as ReplyRequest
from nanochat_jax.serve.engine.text import Piece
from nanochat_jax.serve.server.errors import ApiError
from nanochat_jax.serve.server.responses import OriginalChunk, refusals
from nanochat_jax.serve.server.schemas import (
    MAX_MESSAGE_CHARS,
    MAX_MESSAGES,
    MAX_TOKENS,
    MAX_TOTAL_CHARS,
    OriginalRequest,
    pick,
)
from nanochat_jax.serve.server.service import Service, Session
from nanochat_jax.serve.server.sse import STREAM, event_stream
from nanochat_jax.tokenizer.chat_format import Message, markers_between, parse


def add_routes(router: APIRouter, service: Service) -> None:
    """Adds the route to `router`."""

    @router.post(
        "/chat/completions",
        response_class=StreamingResponse,
        responses={200: STREAM, **refusals(400, 413, 429, 500, 503)},
    )
    async def original_chat_completions(body: OriginalRequest) -> Response:
        problem = first_problem(body)
        if problem is not None:
            refusal = ApiError(400, problem).body
            refusal.detail = problem  # the original's page reads nothing else
            return JSONResponse(refusal.model_dump(), 400)
        service.check_ready()
        defaults = service.defaults
        max_tokens = pick(body.max_tokens, defaults.max_tokens)
        messages = [_message(message["role"], message["content"]) for message in body.messages]
        request = ReplyRequest(
            tuple(service.chat_prompt(messages, max_tokens).tokens),
            max_tokens,
            pick(body.temperature, defaults.temperature),
            pick(body.top_k, defaults.top_k) or None,
            seed=service.seed(None),
        )
        return event_stream(_chunks(service.start([request])), done=None)


def first_problem(body: OriginalRequest) -> str | None:
    """What the original would refuse, in the order it looks; None when nothing."""
    problem = _message_problem(body.messages)
    if problem is not None:
        return problem
    if body.temperature is not None and not 0.0 <= body.temperature <= 2.0:
        return "temperature must lie between 0.0 and 2.0"
    if body.top_k is not None and not 1 <= body.top_k <= 200:
        return "top_k must lie between 1 and 200"
    if body.max_tokens is not None and not 1 <= body.max_tokens <= MAX_TOKENS:
        return f"max_tokens must lie between 1 and {MAX_TOKENS}"
    return None


def _message_problem(messages: list[dict]) -> str | None:
    if not messages:
        return "at least one message is needed"
    if len(messages) > MAX_MESSAGES:
        return f"at most {MAX_MESSAGES} messages are taken"
    for i, message in enumerate(messages):
        if not isinstance(message.get("content"), str) or not message["content"]:
            return f"message {i} has no content"
        if len(message["content"]) > MAX_MESSAGE_CHARS:
            return f"message {i} is longer than {MAX_MESSAGE_CHARS} characters"
    if sum(len(message["content"]) for message in messages) > MAX_TOTAL_CHARS:
        return f"the conversation is longer than {MAX_TOTAL_CHARS} characters"
    for i, message in enumerate(messages):
        if message.get("role") not in ("user", "assistant"):
            return f"message {i} must have the role user or assistant"
    return None


def _message(role: str, content: str) -> Message:
    """A message whose tool calls, sent back by the original's page as text, are parts again."""
    if role != "assistant":
        return Message(role, content)
    return Message(role, [{"type": part.kind, "text": part.text} for part in parse(content)])


async def _chunks(session: Session) -> AsyncGenerator[OriginalChunk, None]:
    """`{"token": text, "gpu": 0}` for each piece of text, then `{"done": true}`."""
    kind = "text"
    async for reply, pieces, _ in session:
        ended = [Piece("text", "")] if reply.finish_reason is not None else []
        for piece in [*pieces, *ended]:
            text, kind = _with_markers(piece, kind), piece.kind
            if text:
                yield OriginalChunk(token=text, gpu=0)
    yield OriginalChunk(done=True)


def _with_markers(piece: Piece, before: str) -> str:
    """The piece's text with the literal markers of what ends and begins."""
    if piece.kind == before:
        return piece.text
    return markers_between(before, piece.kind) + piece.text
