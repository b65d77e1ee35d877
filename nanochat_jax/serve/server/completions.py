"""POST /v1/completions: text or token ids in, text out; prompts can be echoed and scored."""

import asyncio
from collections.abc import AsyncGenerator, Sequence

from fastapi import APIRouter, Request
from fastapi.responses import Response
from pydantic import BaseModel

from nanochat_jax.config.serve import ChatWeb
from nanochat_jax.serve.engine.requests import ScoredToken
from nanochat_jax.serve.engine.text import ReplyReader
from nanochat_jax.serve.server import responses
from nanochat_jax.serve.server.errors import ApiError
from nanochat_jax.serve.server.logprobs import TextScorer
from nanochat_jax.serve.server.responses import TextChoice, TextCompletion, TextLogprobs, refusals
from nanochat_jax.serve.server.schemas import CompletionRequest
from nanochat_jax.serve.server.service import Service, Session, StreamedReply
from nanochat_jax.serve.server.sse import STREAM, event_stream

# OpenAI's defaults for plain completions, where the model's whole distribution is wanted.
DEFAULTS = ChatWeb(temperature=1.0, top_k=0, top_p=1.0, max_tokens=16)


def add_routes(router: APIRouter, service: Service) -> None:
    """Adds the route to `router`."""

    @router.post(
        "/v1/completions",
        response_model=TextCompletion,
        response_model_exclude_unset=True,
        responses={200: STREAM, **refusals(400, 404, 413, 429, 499, 500, 503)},
    )
    async def completions(body: CompletionRequest, request: Request) -> BaseModel | Response:
        service.check(body, "prompt", len(body.prompts()))
        # Beside the event loop: a prompt may be a megabyte of text.
        prompts = [await asyncio.to_thread(_tokens, service, prompt) for prompt in body.prompts()]
        session = service.start(
            prompts, body, DEFAULTS, raw=True,
            alternatives=bool(body.logprobs),
            score_prompt=bool(body.echo) and body.logprobs is not None,
        )  # fmt: skip
        writer = _TextWriter(service, body)
        if body.stream:
            return event_stream(writer.chunks(session))
        replies = await session.finished(request)
        choices = [writer.choice(reply, reply.text, reply.tokens) for reply in replies]
        return TextCompletion(**writer.envelope, choices=choices, usage=session.usage())


def _tokens(service: Service, prompt: str | list[int]) -> list[int]:
    """Token ids as they are; text after a bos, which opens every document.

    Text that begins with the bos by name has it already: ids that were read as text come back.
    """
    if isinstance(prompt, str):
        tokenizer, bos = service.tokenizer, service.tokenizer.get_bos_token_id()
        tokens = tokenizer.encode(prompt.removeprefix(tokenizer.id_to_token(bos)), prepend=bos)
    else:
        tokens = prompt
    service.check_tokens(tokens, "prompt")
    if len(tokens) > service.context:
        most = f"This model's maximum context length is {service.context} tokens"
        message = f"{most}, the prompt has {len(tokens)}: shorten it"
        raise ApiError(400, message, "prompt", "context_length_exceeded")
    return tokens


class _TextWriter:
    """From replies to what is sent: the echoed prompt in front of the first text, scores beside."""

    def __init__(self, service: Service, body: CompletionRequest):
        self._tokenizer, self._body = service.tokenizer, body
        name = service.named(body.model)
        self.envelope = responses.new_envelope("cmpl-", "text_completion", name)
        # The bos put before text is not shown: the echo is what was sent.
        bos = service.tokenizer.id_to_token(service.tokenizer.get_bos_token_id())
        self._bare = [isinstance(p, str) and not p.startswith(bos) for p in body.prompts()]
        # One a reply: each remembers where its text ends.
        self._scorers: dict[int, TextScorer] = {}

    async def chunks(self, session: Session) -> AsyncGenerator[TextCompletion, None]:
        """Text as it comes, and usage where the body wants it."""
        usage = {"usage": None} if self._body.include_usage() else {}
        async for reply, pieces, tokens in session:
            choice = self.choice(reply, "".join(piece.text for piece in pieces), tokens)
            yield TextCompletion(**self.envelope, choices=[choice], **usage)
        if usage:
            yield TextCompletion(**self.envelope, choices=[], usage=session.usage())

    def choice(self, reply: StreamedReply, text: str, tokens: Sequence[ScoredToken]) -> TextChoice:
        """A choice with new `text` and `tokens`; the first of a reply begins with its prompt."""
        echo, scored = "", []
        if reply.index not in self._scorers:
            self._scorers[reply.index] = TextScorer(self._tokenizer, self._body.logprobs)
            if self._body.echo:
                echo, scored = self._echo(reply)
        scores = self._score(reply, [*scored, *tokens])
        text, finish = echo + text, reply.finish_reason
        return TextChoice(index=reply.index, text=text, logprobs=scores, finish_reason=finish)

    def _echo(self, reply: StreamedReply) -> tuple[str, list[ScoredToken | int]]:
        """The prompt as text, and its tokens with their scores."""
        ids = reply.generation.request.tokens
        # The first token has no score: nothing stands before it to predict it from.
        scored: list[ScoredToken | int] = [ids[0], *reply.generation.prompt_scores]
        if self._bare[reply.index // self._body.choices()]:
            ids, scored = ids[1:], scored[1:]
        reader = ReplyReader(self._tokenizer, raw=True)
        pieces = [piece for token in ids for piece in reader.push(token)] + reader.finish()
        return "".join(piece.text for piece in pieces), scored

    def _score(self, reply: StreamedReply, tokens: list[ScoredToken | int]) -> TextLogprobs | None:
        """Scores of new tokens, the stop token that ended a reply included.

        It is not shown, but it was sampled: an evaluation that requests one token finds its score.
        """
        generation = reply.generation
        ended = reply.finish_reason is not None and generation.finish_reason == "stop"
        if ended and len(reply.tokens) == len(generation.tokens) - 1:
            tokens = [*tokens, generation.tokens[-1]]
        return self._scorers[reply.index].score(tokens)
