"""How the routes answer: checks first, streams, and waiting for a client that may leave."""

import asyncio
import json
import secrets
from collections.abc import AsyncGenerator, Iterable

from fastapi import Request
from fastapi.responses import StreamingResponse

from nanochat_jax.serve.server.errors import ApiError
from nanochat_jax.serve.server.openai import error_body
from nanochat_jax.serve.server.service import EngineFailed, Reply, Service, Session

STREAM_HEADERS = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
ONE_EVENT = {"type": "object", "properties": {"data": {"type": "string"}}, "required": ["data"]}
EVENTS = {"text/event-stream": {"schema": ONE_EVENT}}  # for the OpenAPI document
LOOK_S = 0.5  # seconds between looks whether the client is still there


class EventStream(StreamingResponse):
    """Server-sent events."""

    media_type = "text/event-stream"


def pick(value, default):
    """`value`, or `default` where it is None."""
    return default if value is None else value


def pick_seed(seed: int | None) -> int:
    """The seed asked for, or a new one."""
    return secrets.randbits(31) if seed is None else seed


def check_ready(service: Service) -> None:
    """Raises ApiError 503 while nothing can be answered."""
    if service.scheduler.error is not None:
        raise EngineFailed("the engine has failed; the server's log says how")
    if service.scheduler.closing:
        raise ApiError(503, "the server is shutting down", code="shutting_down")
    if not service.ready:
        raise ApiError(503, "the model is still loading; try again soon", code="loading")


def check_model(service: Service, name: str | None) -> None:
    """Raises ApiError 404 for a model that this server does not have."""
    if name is not None and name not in (service.model_id, "nanochat"):
        message = f"The model `{name[:100]}` does not exist; this server has `{service.model_id}`"
        raise ApiError(404, message, "model", "model_not_found")


def check_tokens(service: Service, tokens: Iterable[int], param: str) -> None:
    """Raises ApiError 400 for an id that is not in the vocabulary."""
    last = service.tokenizer.get_vocab_size() - 1
    unknown = next((token for token in tokens if not 0 <= token <= last), None)
    if unknown is not None:
        raise ApiError(400, f"{unknown} is no token of this model; ids lie in 0..{last}", param)


def check_count(service: Service, count: int, param: str) -> None:
    """Raises ApiError 400 for more replies in one request than could ever wait together."""
    most = service.scheduler.queue_limit + len(service.scheduler.engine.slots)
    if count > most:
        message = f"{param}: {count} replies in one request, this server takes {most}: ask for less"
        raise ApiError(400, message, param)


def stream(events: AsyncGenerator[dict | str, None], done: str | None = "[DONE]"):
    """Events as server-sent events, then `done`; an engine failure is told in the stream."""

    async def lines() -> AsyncGenerator[str, None]:
        try:
            async for event in events:
                yield f"data: {json.dumps(event, ensure_ascii=False)}\n\n"
        except EngineFailed as error:
            yield f"data: {json.dumps(error_body(str(error), 'server_error'))}\n\n"
        finally:
            await events.aclose()
        if done is not None:
            yield f"data: {done}\n\n"

    return EventStream(lines(), headers=STREAM_HEADERS)


async def unless_gone(session: Session, request: Request) -> list[Reply]:
    """The finished replies; when the client leaves first, their slots are freed."""
    whole = asyncio.ensure_future(session.finished())
    try:
        while not (await asyncio.wait([whole], timeout=LOOK_S))[0]:
            if await request.is_disconnected():
                raise ApiError(499, "the client closed the connection")
        return whole.result()
    finally:
        whole.cancel()
