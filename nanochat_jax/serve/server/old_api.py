"""POST /chat/completions as the original serves it, so that its page and scripts go on working."""

from collections.abc import AsyncGenerator

from fastapi import FastAPI
from fastapi.responses import JSONResponse, Response

from nanochat_jax.serve.engine.requests import Request as ReplyRequest
from nanochat_jax.serve.engine.text import Piece
from nanochat_jax.serve.server.answers import (
    EVENTS,
    EventStream,
    check_ready,
    pick,
    pick_seed,
    stream,
)
from nanochat_jax.serve.server.openai import error_body
from nanochat_jax.serve.server.responses import refusals
from nanochat_jax.serve.server.schemas import (
    MAX_MESSAGE_CHARS,
    MAX_MESSAGES,
    MAX_TOKENS,
    MAX_TOTAL_CHARS,
    OldAsk,
)
from nanochat_jax.serve.server.service import Service, Session
from nanochat_jax.tokenizer.chat_format import Message, markers_between, parse


def add_routes(app: FastAPI, service: Service) -> None:
    """Adds the route to `app`."""

    @app.post(
        "/chat/completions",
        response_class=EventStream,
        responses={200: {"content": EVENTS}, **refusals(400, 413, 429, 500, 503)},
    )
    async def old_chat_completions(ask: OldAsk) -> Response:
        problem = old_problem(ask)
        if problem is not None:
            body = error_body(problem, "invalid_request_error")
            return JSONResponse({**body, "detail": problem}, 400)  # the old page reads `detail`
        check_ready(service)
        defaults = service.defaults
        max_tokens = pick(ask.max_tokens, defaults.max_tokens)
        messages = [_message(message["role"], message["content"]) for message in ask.messages]
        request = ReplyRequest(
            tuple(service.chat_prompt(messages, max_tokens).tokens),
            max_tokens,
            pick(ask.temperature, defaults.temperature),
            pick(ask.top_k, defaults.top_k) or None,
            seed=pick_seed(None),
        )
        return stream(_events(service.start([request])), done=None)


def old_problem(ask: OldAsk) -> str | None:
    """What the original would refuse, in the order it looks; None when nothing."""
    problem = _message_problem(ask.messages)
    if problem is not None:
        return problem
    if ask.temperature is not None and not 0.0 <= ask.temperature <= 2.0:
        return "temperature must lie between 0.0 and 2.0"
    if ask.top_k is not None and not 1 <= ask.top_k <= 200:
        return "top_k must lie between 1 and 200"
    if ask.max_tokens is not None and not 1 <= ask.max_tokens <= MAX_TOKENS:
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
    """A message whose tool calls, sent back by the old page as text, are parts again."""
    if role != "assistant":
        return Message(role, content)
    return Message(role, [{"type": part.kind, "text": part.text} for part in parse(content)])


async def _events(session: Session) -> AsyncGenerator[dict, None]:
    """`{"token": text, "gpu": 0}` for each piece of text, then `{"done": true}`."""
    kind = "text"
    async for reply, pieces, _ in session:
        ended = [Piece("text", "")] if reply.finish_reason is not None else []
        for piece in [*pieces, *ended]:
            text, kind = _marked(piece, kind), piece.kind
            if text:
                yield {"token": text, "gpu": 0}
    yield {"done": True}


def _marked(piece: Piece, before: str) -> str:
    """The piece's text with the literal markers of what ends and begins."""
    if piece.kind == before:
        return piece.text
    return markers_between(before, piece.kind) + piece.text
