"""POST /v1/chat/completions, and /chat/completions as the original serves it.

Its page and scripts go on working with the second. Source: karpathy/nanochat scripts/chat_web.py.
"""

from collections.abc import AsyncGenerator, Sequence

from fastapi import APIRouter, Request
from fastapi.responses import Response, StreamingResponse
from pydantic import BaseModel

from nanochat_jax.serve.engine.requests import ScoredToken
from nanochat_jax.serve.engine.text import join_parts
from nanochat_jax.serve.server import responses
from nanochat_jax.serve.server.logprobs import chat_logprobs
from nanochat_jax.serve.server.responses import ChatChunkChoice, ChatDelta, refusals
from nanochat_jax.serve.server.schemas import ChatRequest, OriginalRequest, pick
from nanochat_jax.serve.server.service import Service, Session, StreamedReply
from nanochat_jax.serve.server.sse import STREAM, event_stream
from nanochat_jax.tokenizer.chat_format import Part, markers_between


def add_routes(router: APIRouter, service: Service) -> None:
    """Adds the routes to `router`."""

    @router.post(
        "/v1/chat/completions",
        response_model=responses.ChatCompletion,
        response_model_exclude_unset=True,
        responses={200: STREAM, **refusals(400, 404, 413, 429, 499, 500, 503)},
    )
    async def chat_completions(body: ChatRequest, request: Request) -> BaseModel | Response:
        session, extras = _begin(service, body)
        writer = _ChatWriter(service, body)
        if body.stream:
            return event_stream(writer.chunks(session, extras))
        choices = [writer.choice(reply) for reply in await session.finished(request)]
        return responses.ChatCompletion(
            **writer.envelope, choices=choices, usage=session.usage(), timings=session.timings(),
            nanochat=extras,
        )  # fmt: skip

    @router.post(
        "/chat/completions",
        response_class=StreamingResponse,
        responses={200: STREAM, **refusals(400, 413, 429, 500, 503)},
    )
    async def original_chat_completions(body: OriginalRequest) -> Response:
        # Not checked again as a chat: the original's limits are all there are. It takes no seed:
        # each reply is another.
        session, _ = _begin(service, ChatRequest.model_construct(**dict(body)))
        return event_stream(_original_chunks(session), done=None)


def _begin(service: Service, body: ChatRequest) -> tuple[Session, responses.Extras]:
    """The replies to a conversation on their way, and what to tell beside them."""
    service.check(body, "n")
    budget = pick(body.max_tokens, service.cfg.max_tokens)
    prompt = service.chat_prompt(body.messages, budget, bool(body.continue_final_message))
    more = {"alternatives": bool(body.alternatives()), "opening": body.opening()}
    session = service.start([prompt.tokens], body, service.cfg, **more)
    return session, responses.Extras(dropped_messages=prompt.dropped, seed=session.seed)


class _ChatWriter:
    """From replies to what is sent, whole or chunk by chunk."""

    def __init__(self, service: Service, body: ChatRequest):
        self._tokenizer, self._body = service.tokenizer, body
        kind = "chat.completion.chunk" if body.stream else "chat.completion"
        self.envelope = responses.new_envelope("chatcmpl-", kind, service.named(body.model))

    def choice(self, reply: StreamedReply) -> responses.ChatChoice:
        message = responses.ReplyMessage(role="assistant", content=reply.text, refusal=None)
        parts = [responses.ReplyPart(**part) for part in join_parts(reply.pieces)]
        if any(part.type != "text" for part in parts):
            message.parts = parts
        scores = chat_logprobs(self._tokenizer, reply.tokens, self._body.alternatives())
        return responses.ChatChoice(
            index=reply.index, message=message, logprobs=scores, finish_reason=reply.finish_reason
        )

    async def chunks(
        self, session: Session, extras: responses.Extras
    ) -> AsyncGenerator[responses.ChatChunk, None]:
        """Role, text as it comes, how it ended, and usage where the body wants it."""
        # As OpenAI has it: with include_usage every chunk has the field, null but in the last.
        usage = {"usage": None} if self._body.include_usage() else {}
        fields = {**self.envelope, **usage}
        chunk = lambda *choices, **more: responses.ChatChunk(**fields | more, choices=choices)
        for i in range(self._body.choices()):
            yield chunk(_new(i, ChatDelta(role="assistant", content="")), nanochat=extras)
        async for reply, pieces, tokens in session:
            for choice in self._new_text(reply, pieces, tokens):
                yield chunk(choice)
            if reply.finish_reason is not None:
                yield chunk(_new(reply.index, ChatDelta(), reply.finish_reason))
        if usage:
            yield chunk(usage=session.usage(), timings=session.timings())

    def _new_text(
        self, reply: StreamedReply, pieces: Sequence[Part], tokens: Sequence[ScoredToken]
    ) -> list[ChatChunkChoice]:
        """A choice a piece; the tokens' logprobs ride on the first of them."""
        deltas = [
            ChatDelta(content=piece.text)
            if piece.kind == "text"
            else ChatDelta(content="", part=responses.ReplyPart(type=piece.kind, text=piece.text))
            for piece in pieces
        ]
        scores = chat_logprobs(self._tokenizer, tokens, self._body.alternatives())
        if not tokens or scores is None:
            return [_new(reply.index, delta) for delta in deltas]
        # Half a character shows no text yet, but its token is scored.
        choices = [_new(reply.index, delta) for delta in deltas or [ChatDelta(content="")]]
        choices[0].logprobs = scores
        return choices


def _new(index: int, delta: ChatDelta, finish: str | None = None) -> ChatChunkChoice:
    return ChatChunkChoice(index=index, delta=delta, logprobs=None, finish_reason=finish)


async def _original_chunks(session: Session) -> AsyncGenerator[responses.OriginalChunk, None]:
    """`{"token": text, "gpu": 0}` for each piece of text, then `{"done": true}`."""
    # The original streams one text, in which a tool call stands with its markers; they are written
    # where the kind changes, since a piece may be any part of a call.
    kind = "text"
    async for reply, pieces, _ in session:
        # A reply that ends inside a call gets its closing marker by an empty piece of text.
        ended = [Part("text", "")] if reply.finish_reason is not None else []
        for piece in [*pieces, *ended]:
            markers = markers_between(kind, piece.kind) if piece.kind != kind else ""
            kind = piece.kind
            if markers or piece.text:
                yield responses.OriginalChunk(token=markers + piece.text, gpu=0)
    yield responses.OriginalChunk(done=True)
