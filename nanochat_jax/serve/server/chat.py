"""POST /v1/chat/completions."""

from collections.abc import AsyncGenerator, Sequence

from fastapi import APIRouter, Request
from fastapi.responses import StreamingResponse

from nanochat_jax.serve.engine.requests import ScoredToken
from nanochat_jax.serve.engine.text import join_parts
from nanochat_jax.serve.server.logprobs import chat_logprobs
from nanochat_jax.serve.server.responses import (
    ChatChoice,
    ChatChunk,
    ChatChunkChoice,
    ChatCompletion,
    ChatDelta,
    Extras,
    ReplyMessage,
    ReplyPart,
    new_envelope,
    refusals,
)
from nanochat_jax.serve.server.schemas import ChatRequest, pick
from nanochat_jax.serve.server.service import Service, Session, StreamedReply
from nanochat_jax.serve.server.sse import STREAM, event_stream
from nanochat_jax.tokenizer.chat_format import Part


def add_routes(router: APIRouter, service: Service) -> None:
    """Adds the route to `router`."""

    @router.post(
        "/v1/chat/completions",
        response_model=ChatCompletion,
        response_model_exclude_unset=True,
        responses={200: STREAM, **refusals(400, 404, 413, 429, 499, 500, 503)},
    )
    async def chat_completions(
        body: ChatRequest, request: Request
    ) -> ChatCompletion | StreamingResponse:
        service.check_ready()
        service.check_model(body.model)
        service.check_count(body.choices(), "n")
        max_tokens = pick(body.limit(), service.defaults.max_tokens)
        messages = [message.message() for message in body.messages]
        prompt = service.chat_prompt(messages, max_tokens)
        seed = service.seed(body.seed)
        requests = service.requests(
            [prompt.tokens], body, seed, service.defaults, alternatives=bool(body.alternatives())
        )
        session = service.start(requests, body.stops())
        extras = Extras(dropped_messages=prompt.dropped, seed=seed)
        writer = _ChatWriter(service, body)
        if body.stream:
            return event_stream(writer.chunks(session, len(prompt.tokens), extras))
        replies = await session.finished(request.is_disconnected)
        usage = session.usage(len(prompt.tokens))
        return writer.completion(replies, usage=usage, nanochat=extras)


class _ChatWriter:
    """From replies to what is sent, whole or chunk by chunk."""

    def __init__(self, service: Service, body: ChatRequest):
        self._tokenizer, self._body = service.tokenizer, body
        self._top = body.alternatives()
        kind = "chat.completion.chunk" if body.stream else "chat.completion"
        self._envelope = new_envelope("chatcmpl-", kind, service.model_id)

    def completion(self, replies: Sequence[StreamedReply], **more) -> ChatCompletion:
        choices = [self._choice(reply) for reply in replies]
        return ChatCompletion(**self._envelope, choices=choices, **more)

    def _choice(self, reply: StreamedReply) -> ChatChoice:
        message = ReplyMessage(role="assistant", content=reply.text, refusal=None)
        parts = [ReplyPart(**part) for part in join_parts(reply.pieces)]
        if any(part.type != "text" for part in parts):
            message.parts = parts
        return ChatChoice(
            index=reply.index,
            message=message,
            logprobs=chat_logprobs(self._tokenizer, reply.tokens, self._top),
            finish_reason=reply.finish_reason,
        )

    async def chunks(
        self, session: Session, prompt_tokens: int, extras: Extras
    ) -> AsyncGenerator[ChatChunk, None]:
        """Role, text as it comes, how it ended, and usage where the body wants it."""
        # As OpenAI has it: with include_usage every chunk has the field, null but in the last.
        usage = {"usage": None} if self._body.include_usage() else {}
        for i in range(self._body.choices()):
            delta = ChatDelta(role="assistant", content="")
            yield self._chunk([_new(i, delta)], **usage, nanochat=extras)
        async for reply, pieces, tokens in session:
            for choice in self._new_text(reply, pieces, tokens):
                yield self._chunk([choice], **usage)
            if reply.finish_reason is not None:
                yield self._chunk([_new(reply.index, ChatDelta(), reply.finish_reason)], **usage)
        if usage:
            yield self._chunk([], usage=session.usage(prompt_tokens))

    def _chunk(self, choices: list[ChatChunkChoice], **more) -> ChatChunk:
        return ChatChunk(**self._envelope, choices=choices, **more)

    def _new_text(
        self, reply: StreamedReply, pieces: Sequence[Part], tokens: Sequence[ScoredToken]
    ) -> list[ChatChunkChoice]:
        """A choice a piece; the tokens' logprobs ride on the first of them."""
        deltas = [
            ChatDelta(content=piece.text)
            if piece.kind == "text"
            else ChatDelta(content="", part=ReplyPart(type=piece.kind, text=piece.text))
            for piece in pieces
        ]
        choices = [_new(reply.index, delta) for delta in deltas]
        if tokens and self._top is not None:
            # Half a character shows no text yet, but its token is scored.
            choices = choices or [_new(reply.index, ChatDelta(content=""))]
            choices[0].logprobs = chat_logprobs(self._tokenizer, tokens, self._top)
        return choices


def _new(index: int, delta: ChatDelta, finish: str | None = None) -> ChatChunkChoice:
    return ChatChunkChoice(index=index, delta=delta, logprobs=None, finish_reason=finish)
