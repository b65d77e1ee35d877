"""POST /chat/completions as the original serves it, so that its page and scripts go on working.

Source: karpathy/nanochat scripts/chat_web.py.
"""

from collections.abc import AsyncGenerator

from fastapi import APIRouter
from fastapi.responses import Response, StreamingResponse

from nanochat_jax.serve.engine.requests import Request as ReplyRequest
from nanochat_jax.serve.server.responses import OriginalChunk, refusals
from nanochat_jax.serve.server.schemas import OriginalRequest, pick
from nanochat_jax.serve.server.service import Service, Session
from nanochat_jax.serve.server.sse import STREAM, event_stream
from nanochat_jax.tokenizer.chat_format import Message, Part, markers_between, parse


def add_routes(router: APIRouter, service: Service) -> None:
    """Adds the route to `router`."""

    @router.post(
        "/chat/completions",
        response_class=StreamingResponse,
        responses={200: STREAM, **refusals(400, 413, 429, 500, 503)},
    )
    async def original_chat_completions(body: OriginalRequest) -> Response:
        service.check_ready()
        defaults = service.defaults
        max_tokens = pick(body.max_tokens, defaults.max_tokens)
        messages = [_message(message.role, message.content) for message in body.messages]
        request = ReplyRequest(
            tuple(service.chat_prompt(messages, max_tokens).tokens),
            max_tokens,
            pick(body.temperature, defaults.temperature),
            pick(body.top_k, defaults.top_k) or None,
            seed=service.seed(None),  # the original takes none: each reply is another
        )
        return event_stream(_chunks(service.start([request])), done=None)


def _message(role: str, content: str) -> Message:
    """A message whose tool calls, sent back by the original's page as text, are parts again."""
    if role != "assistant":
        return Message(role, content)
    return Message(role, [{"type": part.kind, "text": part.text} for part in parse(content)])


async def _chunks(session: Session) -> AsyncGenerator[OriginalChunk, None]:
    """`{"token": text, "gpu": 0}` for each piece of text, then `{"done": true}`."""
    # The original streams one text, in which a tool call stands with its markers; they are written
    # where the kind changes, since a piece may be any part of a call.
    kind = "text"
    async for reply, pieces, _ in session:
        # A reply that ends inside a call gets its closing marker by an empty piece of text.
        ended = [Part("text", "")] if reply.finish_reason is not None else []
        for piece in [*pieces, *ended]:
            text, kind = _with_markers(piece, kind), piece.kind
            if text:
                yield OriginalChunk(token=text, gpu=0)
    yield OriginalChunk(done=True)


def _with_markers(piece: Part, before: str) -> str:
    """The piece's text with the literal markers of what ends and begins."""
    if piece.kind == before:
        return piece.text
    return markers_between(before, piece.kind) + piece.text
