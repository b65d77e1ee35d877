"""POST /v1/completions: text or token ids in, text out; prompts can be echoed and scored."""

import asyncio
from collections.abc import AsyncGenerator

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response

from nanochat_jax.serve.engine.requests import Request as ReplyRequest
from nanochat_jax.serve.engine.requests import SampledToken, derive_seed
from nanochat_jax.serve.engine.text import ReplyReader
from nanochat_jax.serve.server.answers import (
    EVENTS,
    check_count,
    check_model,
    check_ready,
    check_tokens,
    pick,
    pick_seed,
    stream,
    unless_gone,
)
from nanochat_jax.serve.server.errors import ApiError
from nanochat_jax.serve.server.openai import Envelope, Ruler, usage
from nanochat_jax.serve.server.responses import Completion, refusals
from nanochat_jax.serve.server.schemas import CompletionAsk
from nanochat_jax.serve.server.service import Reply, Service, Session

MAX_TOKENS = 16  # OpenAI's default for plain completions


def add_routes(app: FastAPI, service: Service) -> None:
    """Adds the route to `app`."""

    @app.post(
        "/v1/completions",
        response_model=Completion,
        responses={200: {"content": EVENTS}, **refusals(400, 404, 413, 429, 499, 500, 503)},
    )
    async def completions(ask: CompletionAsk, request: Request) -> Response:
        check_ready(service)
        check_model(service, ask.model)
        check_count(service, len(ask.prompts()) * (ask.n or 1), "prompt")
        return await _answer(service, ask, request)


async def _answer(service: Service, ask: CompletionAsk, request: Request) -> Response:
    prompts = [await asyncio.to_thread(_tokens, service, prompt) for prompt in ask.prompts()]
    seed, count = pick_seed(ask.seed), sum(map(len, prompts))
    session = service.start(_requests(ask, prompts, seed), ask.stops(), raw=True)
    writer = _Writer(service, ask)
    if ask.stream:
        return stream(_events(session, writer, ask, lambda: usage(count, session.replies)))
    replies = await unless_gone(session, request)
    choices = [writer.whole(reply) for reply in replies]
    return JSONResponse(writer.envelope.whole(choices, usage(count, replies)))


def _tokens(service: Service, prompt: str | list[int]) -> list[int]:
    """Token ids as they are; text after a bos, which opens every document.

    Text that begins with the bos by name has it already: ids that were read as text come back.
    """
    if isinstance(prompt, str):
        tokenizer, bos = service.tokenizer, service.tokenizer.get_bos_token_id()
        tokens = tokenizer.encode(prompt.removeprefix(tokenizer.id_to_token(bos)), prepend=bos)
    else:
        tokens = prompt
    check_tokens(service, tokens, "prompt")
    if len(tokens) > service.context:
        raise ApiError(
            400,
            f"This model's maximum context length is {service.context} tokens, the prompt has "
            f"{len(tokens)}: shorten it",
            "prompt",
            "context_length_exceeded",
        )
    return tokens


def _requests(ask: CompletionAsk, prompts: list[list[int]], seed: int) -> list[ReplyRequest]:
    """n requests a prompt, all prompts' in order."""
    settings = {
        "max_tokens": pick(ask.max_tokens, MAX_TOKENS),
        "temperature": pick(ask.temperature, 1.0),
        "top_k": ask.top_k,
        "top_p": pick(ask.top_p, 1.0),
        "alternatives": bool(ask.logprobs),
        "score_prompt": bool(ask.echo) and ask.logprobs is not None,
    }
    n = ask.n or 1
    wanted = [tokens for tokens in prompts for _ in range(n)]
    return [
        ReplyRequest(tuple(tokens), seed=derive_seed(seed, i), **settings)
        for i, tokens in enumerate(wanted)
    ]


class _Writer:
    """Writes choices: the echoed prompt in front of the first text, scores beside it."""

    def __init__(self, service: Service, ask: CompletionAsk):
        self.envelope = Envelope(service.tokenizer, service.model_id, chat=False)
        self._tokenizer, self._ask = service.tokenizer, ask
        # The bos put before text is not shown: the echo is what was sent.
        bos = service.tokenizer.id_to_token(service.tokenizer.get_bos_token_id())
        self._bare = [isinstance(p, str) and not p.startswith(bos) for p in ask.prompts()]
        self._rulers: dict[int, Ruler] = {}

    def _prompt(self, reply: Reply) -> tuple[str, list[SampledToken | int]]:
        """The prompt as text and as scored tokens."""
        if not self._ask.echo:
            return "", []
        ids = reply.job.request.tokens
        scored: list[SampledToken | int] = [ids[0], *reply.job.prompt_scores]
        if self._bare[reply.index // (self._ask.n or 1)]:
            ids, scored = ids[1:], scored[1:]
        reader = ReplyReader(self._tokenizer, raw=True)
        pieces = [piece for token in ids for piece in reader.push(token)] + reader.finish()
        return "".join(piece.text for piece in pieces), scored

    def whole(self, reply: Reply) -> dict:
        """The choice of a reply that has ended."""
        text, scored = self._prompt(reply)
        scores = self._scores(reply, [*scored, *reply.choices])
        return self.envelope.text_choice(
            reply.index, text + reply.text, reply.finish_reason, scores
        )

    def chunk(self, reply: Reply, pieces, tokens, first: bool) -> dict:
        """The choice of a stream chunk."""
        text, scored = self._prompt(reply) if first else ("", [])
        scores = self._scores(reply, [*scored, *tokens])
        text += "".join(piece.text for piece in pieces)
        return self.envelope.text_choice(reply.index, text, reply.finish_reason, scores)

    def _scores(self, reply: Reply, tokens: list[SampledToken | int]) -> dict | None:
        """Scores of new tokens. The terminal token that ended a reply is scored too, as it was
        chosen: who asks for one token after a prompt finds one."""
        job = reply.job
        ended = reply.finish_reason is not None and job.finish_reason == "stop"
        if ended and len(reply.choices) == len(job.tokens) - 1:
            tokens = [*tokens, job.tokens[-1]]
        ruler = self._rulers.setdefault(reply.index, Ruler(self._tokenizer))
        return self.envelope.text_logprobs(tokens, self._ask.logprobs, ruler)


async def _events(
    session: Session, writer: _Writer, ask: CompletionAsk, used
) -> AsyncGenerator[dict, None]:
    extra, begun = ({"usage": None} if ask.include_usage() else {}), set()
    async for reply, pieces, tokens in session:
        choice = writer.chunk(reply, pieces, tokens, reply.index not in begun)
        begun.add(reply.index)
        yield writer.envelope.chunk([choice], **extra)
    if extra:
        yield writer.envelope.chunk([], usage=used())
