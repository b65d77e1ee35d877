"""POST /v1/chat/completions."""

from collections.abc import AsyncGenerator

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response

from nanochat_jax.serve.engine.requests import Request as ReplyRequest
from nanochat_jax.serve.engine.requests import derive_seed
from nanochat_jax.serve.server.answers import (
    EVENTS,
    check_count,
    check_model,
    check_ready,
    pick,
    pick_seed,
    stream,
    unless_gone,
)
from nanochat_jax.serve.server.openai import Envelope, usage
from nanochat_jax.serve.server.responses import ChatCompletion, refusals
from nanochat_jax.serve.server.schemas import ChatAsk
from nanochat_jax.serve.server.service import Service, Session


def add_routes(app: FastAPI, service: Service) -> None:
    """Adds the route to `app`."""

    @app.post(
        "/v1/chat/completions",
        response_model=ChatCompletion,
        responses={200: {"content": EVENTS}, **refusals(400, 404, 413, 429, 499, 500, 503)},
    )
    async def chat_completions(ask: ChatAsk, request: Request) -> Response:
        check_ready(service)
        check_model(service, ask.model)
        check_count(service, ask.n or 1, "n")
        return await _answer(service, ask, request)


async def _answer(service: Service, ask: ChatAsk, request: Request) -> Response:
    max_tokens = pick(ask.limit(), service.defaults.max_tokens)
    prompt = service.chat_prompt([message.message() for message in ask.messages], max_tokens)
    seed = pick_seed(ask.seed)
    session = service.start(_requests(service, ask, prompt.tokens, max_tokens, seed), ask.stops())
    envelope = Envelope(service.tokenizer, service.model_id, chat=True)
    logprobs = (ask.top_logprobs or 0) if ask.logprobs else None
    notes = {"nanochat": {"dropped_messages": prompt.dropped, "seed": seed}}
    if ask.stream:
        used = lambda: usage(len(prompt.tokens), session.replies)
        return stream(_events(session, envelope, ask, logprobs, notes, used))
    replies = await unless_gone(session, request)
    choices = [envelope.chat_choice(reply, logprobs) for reply in replies]
    return JSONResponse(envelope.whole(choices, usage(len(prompt.tokens), replies), **notes))


def _requests(
    service: Service, ask: ChatAsk, tokens: list[int], max_tokens: int, seed: int
) -> list[ReplyRequest]:
    """One request a choice; what the ask leaves open is the server's default."""
    defaults = service.defaults
    settings = {
        "max_tokens": max_tokens,
        "temperature": pick(ask.temperature, defaults.temperature),
        "top_k": pick(ask.top_k, defaults.top_k) or None,
        "top_p": pick(ask.top_p, defaults.top_p),
        "alternatives": bool(ask.logprobs and ask.top_logprobs),
    }
    seeds = [derive_seed(seed, i) for i in range(ask.n or 1)]
    return [ReplyRequest(tuple(tokens), seed=each, **settings) for each in seeds]


async def _events(
    session: Session, envelope: Envelope, ask: ChatAsk, logprobs: int | None, notes: dict, used
) -> AsyncGenerator[dict, None]:
    """The chunks of a stream: role, text as it comes, how it ended, usage when asked for."""
    extra = {"usage": None} if ask.include_usage() else {}
    delta, chunk = envelope.chat_delta, envelope.chunk
    for i in range(ask.n or 1):
        yield chunk([delta(i, {"role": "assistant", "content": ""})], **extra, **notes)
    async for reply, pieces, tokens in session:
        for choice in envelope.chat_pieces(reply, pieces, tokens, logprobs):
            yield chunk([choice], **extra)
        if reply.finish_reason is not None:
            yield chunk([delta(reply.index, {}, reply.finish_reason)], **extra)
    if extra:
        yield chunk([], usage=used())
