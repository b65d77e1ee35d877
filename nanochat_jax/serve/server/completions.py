"""POST /v1/completions: text or token ids in, text out; prompts can be echoed and scored."""

import asyncio
import collections
from collections.abc import AsyncGenerator, Sequence

from fastapi import APIRouter, Request
from fastapi.responses import StreamingResponse

from nanochat_jax.config.serve import ChatWeb
from nanochat_jax.serve.engine.requests import ScoredToken
from nanochat_jax.serve.engine.text import ReplyReader
from nanochat_jax.serve.server.errors import ApiError
from nanochat_jax.serve.server.logprobs import TextScorer
from nanochat_jax.serve.server.responses import (
    TextChoice,
    TextCompletion,
    TextLogprobs,
    new_envelope,
    refusals,
)
from nanochat_jax.serve.server.schemas import CompletionRequest
from nanochat_jax.serve.server.service import Service, Session, StreamedReply
from nanochat_jax.serve.server.sse import STREAM, event_stream
from nanochat_jax.tokenizer.chat_format import Part

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
    async def completions(
        body: CompletionRequest, request: Request
    ) -> TextCompletion | StreamingResponse:
        service.check_ready()
        service.check_model(body.model)
        service.check_count(len(body.prompts()) * body.choices(), "prompt")
        # Beside the event loop: a prompt may be a megabyte of text.
        prompts = [await asyncio.to_thread(_tokens, service, prompt) for prompt in body.prompts()]
        seed, prompt_tokens = service.seed(body.seed), sum(map(len, prompts))
        requests = service.requests(
            prompts, body, seed, DEFAULTS,
            alternatives=bool(body.logprobs),
            score_prompt=bool(body.echo) and body.logprobs is not None,
        )  # fmt: skip
        session = service.start(requests, body.stops(), raw=True)
        writer = _TextWriter(service, body)
        if body.stream:
            return event_stream(writer.chunks(session, prompt_tokens))
        replies = await session.finished(request.is_disconnected)
        return writer.completion(replies, usage=session.usage(prompt_tokens))


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
        raise ApiError(
            400,
            f"This model's maximum context length is {service.context} tokens, the prompt has "
            f"{len(tokens)}: shorten it",
            "prompt",
            "context_length_exceeded",
        )
    return tokens


class _TextWriter:
    """From replies to what is sent: the echoed prompt in front of the first text, scores beside."""

    def __init__(self, service: Service, body: CompletionRequest):
        self._tokenizer, self._body = service.tokenizer, body
        self._envelope = new_envelope("cmpl-", "text_completion", service.model_id)
        # The bos put before text is not shown: the echo is what was sent.
        bos = service.tokenizer.id_to_token(service.tokenizer.get_bos_token_id())
        self._bare = [isinstance(p, str) and not p.startswith(bos) for p in body.prompts()]
        # One a reply: each remembers where its text ends.
        self._scorers = collections.defaultdict(
            lambda: TextScorer(service.tokenizer, body.logprobs)
        )

    def completion(self, replies: Sequence[StreamedReply], **more) -> TextCompletion:
        choices = [self._choice(reply, reply.text, reply.tokens, first=True) for reply in replies]
        return TextCompletion(**self._envelope, choices=choices, **more)

    async def chunks(
        self, session: Session, prompt_tokens: int
    ) -> AsyncGenerator[TextCompletion, None]:
        """Text as it comes, and usage where the body wants it."""
        usage, begun = ({"usage": None} if self._body.include_usage() else {}), set()
        async for reply, pieces, tokens in session:
            text = "".join(piece.text for piece in pieces)
            choice = self._choice(reply, text, tokens, first=reply.index not in begun)
            begun.add(reply.index)
            yield TextCompletion(**self._envelope, choices=[choice], **usage)
        if usage:
            yield self.completion([], usage=session.usage(prompt_tokens))

    def _choice(
        self, reply: StreamedReply, text: str, tokens: Sequence[ScoredToken], first: bool
    ) -> TextChoice:
        """A choice with new `text` and `tokens`; the `first` of a reply begins with its prompt."""
        echo, scored = self._echo(reply) if first and self._body.echo else ("", [])
        return TextChoice(
            index=reply.index,
            text=echo + text,
            logprobs=self._score(reply, [*scored, *tokens]),
            finish_reason=reply.finish_reason,
        )

    def _echo(self, reply: StreamedReply) -> tuple[str, list[ScoredToken | int]]:
        """The prompt as text, and its tokens with their scores."""
        ids = reply.generation.request.tokens
        # The first token has no score: nothing stands before it to predict it from.
        scored: list[ScoredToken | int] = [ids[0], *reply.generation.prompt_scores]
        if self._bare[reply.index // self._body.choices()]:
            ids, scored = ids[1:], scored[1:]
        reader = ReplyReader(self._tokenizer, raw=True)
        pieces: list[Part] = [piece for token in ids for piece in reader.push(token)]
        return "".join(piece.text for piece in pieces + reader.finish()), scored

    def _score(self, reply: StreamedReply, tokens: list[ScoredToken | int]) -> TextLogprobs | None:
        """Scores of new tokens, the stop token that ended a reply included.

        It is not shown, but it was sampled: an evaluation that requests one token finds its score.
        """
        generation = reply.generation
        ended = reply.finish_reason is not None and generation.finish_reason == "stop"
        if ended and len(reply.tokens) == len(generation.tokens) - 1:
            tokens = [*tokens, generation.tokens[-1]]
        return self._scorers[reply.index].score(tokens)
