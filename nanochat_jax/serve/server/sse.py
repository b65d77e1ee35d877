"""Server-sent events: a stream of pydantic models on the wire."""

from collections.abc import AsyncGenerator

from fastapi.responses import StreamingResponse
from pydantic import BaseModel

from nanochat_jax.serve.server.errors import EngineFailed

# nginx collects a response before it passes it on, unless this header forbids it.
HEADERS = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
MEDIA_TYPE = "text/event-stream"
EVENT = {"type": "object", "properties": {"data": {"type": "string"}}, "required": ["data"]}
# Line ends to Python's `splitlines`, and so to OpenAI's own client: they may stand in JSON, but an
# event would be cut there. (JSON itself escapes all others.)
ESCAPED = {ord(c): f"\\u{ord(c):04x}" for c in "\u0085\u2028\u2029"}
STREAM = {"content": {MEDIA_TYPE: {"schema": EVENT}}}  # for the OpenAPI document


def event_stream(
    events: AsyncGenerator[BaseModel, None], done: str | None = "[DONE]"
) -> StreamingResponse:
    """`events`, then `done`; the status is long sent when an engine fails: an event says so."""

    async def lines() -> AsyncGenerator[str, None]:
        try:
            async for event in events:
                yield _line(event)
        except EngineFailed as error:
            yield _line(error.body)
        finally:
            # A client that leaves ends this generator; the slots are freed by ending the other.
            await events.aclose()
        if done is not None:
            yield f"data: {done}\n\n"

    return StreamingResponse(lines(), media_type=MEDIA_TYPE, headers=HEADERS)


def _line(event: BaseModel) -> str:
    return f"data: {event.model_dump_json(exclude_unset=True).translate(ESCAPED)}\n\n"
