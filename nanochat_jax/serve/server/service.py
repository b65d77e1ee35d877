"""From requests to replies on their way: what the routes share, on the event loop's side."""

import asyncio
import collections
import random
import time
from collections.abc import AsyncIterator, Collection, Iterable, Sequence

from fastapi import Request as HTTPRequest

from nanochat_jax.config.serve import ChatWeb
from nanochat_jax.serve.engine.prompt import Prompt, fit_conversation
from nanochat_jax.serve.engine.requests import Generation, Request, ScoredToken, derive_seed
from nanochat_jax.serve.engine.text import ReplyReader, merge
from nanochat_jax.serve.server.errors import ApiError, EngineFailed
from nanochat_jax.serve.server.metrics import Counters
from nanochat_jax.serve.server.responses import HealthStatus, PromptDetails, Timings, Usage
from nanochat_jax.serve.server.scheduler import Scheduler
from nanochat_jax.serve.server.schemas import ChatMessage, SamplingFields, pick
from nanochat_jax.tokenizer import Tokenizer
from nanochat_jax.tokenizer.chat_format import Part, PartKind

LOOK_S = 0.5  # seconds between looks whether the client is still there


class StreamedReply:
    """One reply of a request as its reader sees it: pieces of text, tokens, how it ended."""

    def __init__(self, index: int, generation: Generation, reader: ReplyReader):
        self.index, self.generation, self._reader = index, generation, reader
        self.pieces: list[Part] = []
        self.tokens: list[ScoredToken] = []
        self.finish_reason: str | None = None

    def feed(self, new: Sequence[ScoredToken], finish: str | None) -> "Update":
        """Takes what the engine sampled; returns itself, the new text and its tokens."""
        shown, taken = [], []
        # The stop token itself has no text, and is not counted as part of the reply.
        for token in new[: len(new) - (finish == "stop")]:
            shown += self._reader.push(token.id)
            taken.append(token)
            if self._reader.stopped:
                break
        self.finish_reason = "stop" if self._reader.stopped else finish
        if self.finish_reason is not None:
            shown += self._reader.finish()
        # One event a dispatch, not one a token: eight times fewer writes to the socket.
        shown = merge(shown)
        self.pieces += shown
        self.tokens += taken
        return self, shown, taken

    @property
    def text(self) -> str:
        """What the reply says, without its tool calls."""
        return "".join(piece.text for piece in self.pieces if piece.kind == "text")


# A reply, and what is new of it.
Update = tuple[StreamedReply, list[Part], list[ScoredToken]]


class Mailbox:
    """From the engine's thread into the queues of the event loop, which is woken once a dispatch.

    Woken once a reply it would spend more time on waking than on writing.
    """

    def __init__(self):
        self._loop: asyncio.AbstractEventLoop | None = None
        self._posted: collections.deque[tuple[asyncio.Queue, tuple]] = collections.deque()
        self._called = False

    def open(self) -> None:
        """Delivers in the running event loop from now on."""
        self._loop = asyncio.get_running_loop()

    def post(self, queue: asyncio.Queue, update: tuple) -> None:
        """Puts `update` into `queue` soon; raises RuntimeError when the event loop is closed."""
        self._posted.append((queue, update))
        if not self._called:
            self._called = True
            try:
                self._loop.call_soon_threadsafe(self._deliver)
            except RuntimeError:
                self._called = False
                raise

    def _deliver(self) -> None:
        self._called = False  # first: what is posted from here on calls again
        while self._posted:
            queue, update = self._posted.popleft()
            queue.put_nowait(update)


class Session:
    """The replies of one request on their way. Iterating yields what is new until all ended."""

    def __init__(
        self, scheduler: Scheduler, mailbox: Mailbox, counters: Counters, seed: int, tokens: int
    ):
        self._scheduler, self._mailbox, self._counters = scheduler, mailbox, counters
        self.seed, self._prompt_tokens = seed, tokens
        self._began = time.monotonic()
        self._queue: asyncio.Queue = asyncio.Queue()
        self._replies: dict[Generation, StreamedReply] = {}

    def add(self, request: Request, reader: ReplyReader) -> None:
        """Queues one more reply. Raises RequestRefused and QueueFull as the scheduler does."""
        generation = self._scheduler.submit(request, self._on_update)
        self._replies[generation] = StreamedReply(len(self._replies), generation, reader)

    def _on_update(self, generation: Generation, new: Sequence[ScoredToken]) -> None:
        """Called in the engine's thread with what it sampled."""
        try:
            self._mailbox.post(self._queue, (generation, list(new), generation.finish_reason))
        except RuntimeError:  # the event loop is gone: nobody listens any more
            generation.cancel()

    async def __aiter__(self) -> AsyncIterator[Update]:
        """Yields (reply, new pieces, new tokens); a reply that has ended is not seen again.

        Leaving early frees every slot. Raises EngineFailed when the engine dies.
        """
        try:
            while any(reply.finish_reason is None for reply in self._replies.values()):
                generation, new, finish = await self._queue.get()
                if self._replies[generation].finish_reason is None:
                    yield self._take(generation, new, finish)
        finally:
            self.leave()

    def _take(self, generation: Generation, new: list[ScoredToken], finish: str | None) -> Update:
        reply = self._replies[generation]
        if not reply.tokens and new:
            self._counters.first_token(time.monotonic() - self._began)
        if finish in ("failed", "cancelled"):
            raise EngineFailed("the engine ended before the reply did")
        update = reply.feed(new, finish)
        if reply.finish_reason is not None and not generation.done:
            self._scheduler.cancel(generation)  # a stop string, which the engine does not know
        return update

    async def finished(self, client: HTTPRequest) -> Collection[StreamedReply]:
        """All replies, once all have ended; when `client` leaves first, their slots are freed.

        Nothing is written before the end, so that no failing write shows that nobody waits.
        """

        async def read_all() -> None:
            async for _ in self:
                pass

        whole = asyncio.ensure_future(read_all())
        try:
            while not (await asyncio.wait([whole], timeout=LOOK_S))[0]:
                if await client.is_disconnected():
                    raise ApiError(499, "the client closed the connection")
            whole.result()  # raises what ended it
            return self._replies.values()
        finally:
            whole.cancel()

    def usage(self) -> Usage:
        """Token counts of the whole request."""
        replies = list(self._replies.values())
        completion = sum(len(reply.tokens) for reply in replies)
        # Of several replies to one prompt the first alone says what was there before the request.
        cached = sum(reply.generation.cached_tokens for reply in replies[:1])
        return Usage(
            prompt_tokens=self._prompt_tokens, completion_tokens=completion,
            total_tokens=self._prompt_tokens + completion,
            prompt_tokens_details=PromptDetails(cached_tokens=cached),
        )  # fmt: skip

    def timings(self) -> Timings:
        """How long reading and writing took, from the engine's own clock; call it at the end."""
        generations, usage = self._replies.keys(), self.usage()
        began, read = min(g.began_s for g in generations), min(g.read_s for g in generations)
        cached = usage.prompt_tokens_details.cached_tokens
        prompt, written = usage.prompt_tokens - cached, usage.completion_tokens
        prompt_s, written_s = read - began, max(g.last_s for g in generations) - read
        return Timings(
            cache_n=cached, prompt_n=prompt, prompt_ms=1e3 * prompt_s,
            prompt_per_second=_rate(prompt, prompt_s), predicted_n=written,
            predicted_ms=1e3 * written_s, predicted_per_second=_rate(written, written_s),
        )  # fmt: skip

    def leave(self) -> None:
        """Frees what still runs and books the tokens; call it once."""
        for generation, reply in self._replies.items():
            if not generation.done:
                self._scheduler.cancel(generation)
            # Else session and generation would hold each other until a full garbage collection,
            # which seldom comes: memory grew by 8 kB a reply in ten minutes of bench/soak.py.
            generation.on_update = None
            self._counters.add(generation, len(reply.tokens))


def _rate(count: int, seconds: float) -> float:
    return count / seconds if seconds > 0 else 0.0


class Service:
    """What the routes share. Everything here runs in the event loop's thread.

    `base_id`: what the model is called without its adapters; empty: it has none.
    """

    def __init__(
        self, scheduler: Scheduler, tokenizer: Tokenizer, model_id: str, cfg: ChatWeb,
        base_id: str = "",
    ):  # fmt: skip
        self.scheduler, self.tokenizer, self.base_id = scheduler, tokenizer, base_id
        self.model_id, self.cfg, self.context = model_id, cfg, scheduler.engine.max_len
        self.counters = Counters()
        self.leaving = False  # a signal has come; requests are still answered
        self._mailbox = Mailbox()
        self._seeds = random.Random(None if cfg.seed < 0 else cfg.seed)

    @property
    def ready(self) -> bool:
        """Compiled, healthy and not shutting down."""
        return self.scheduler.ready.is_set() and not self.scheduler.closing

    @property
    def status(self) -> HealthStatus:
        """What `/health` says: `ok` alone asks for requests."""
        if self.scheduler.error is not None:
            return "failed"
        if self.leaving or self.scheduler.closing:
            return "draining"
        return "ok" if self.ready else "loading"

    # Checks, before anything is queued.

    def check_ready(self) -> None:
        """Raises ApiError 503 while nothing can be answered."""
        if self.scheduler.error is not None:
            raise EngineFailed
        if self.scheduler.closing:
            raise ApiError(503, "the server is shutting down", code="shutting_down")
        if not self.ready:
            raise ApiError(503, "the model is still loading; try again soon", code="loading")

    @property
    def model_ids(self) -> tuple[str, ...]:
        """The names that requests may ask for; the first one answers where none is named."""
        return (self.model_id, self.base_id) if self.base_id else (self.model_id,)

    def named(self, name: str | None) -> str:
        """The model that answers to a name.

        Raises ApiError 404 for a model that this server does not have.
        """
        if name in (None, "nanochat"):
            return self.model_id
        if name not in self.model_ids:
            have = "` and `".join(self.model_ids)
            message = f"The model `{name[:100]}` does not exist; this server has `{have}`"
            raise ApiError(404, message, "model", "model_not_found")
        return name

    def check_tokens(self, tokens: Iterable[int], param: str) -> None:
        """Raises ApiError 400 for an id that is not in the vocabulary."""
        last = self.tokenizer.get_vocab_size() - 1
        unknown = next((token for token in tokens if not 0 <= token <= last), None)
        if unknown is not None:
            message = f"{param}: {unknown} is no token of this model; ids lie in 0..{last}"
            raise ApiError(400, message, param)

    def check(self, body: SamplingFields, param: str, prompts: int = 1) -> None:
        """Raises ApiError for what is refused before anything is read.

        Among that is one request that would leave no place for others: more replies than half of
        those that can run and wait together. `param` is what asks for them.
        """
        self.check_ready()
        self.named(body.model)
        self.check_tokens(map(int, body.logit_bias or ()), "logit_bias")
        count = prompts * body.choices()
        places = self.scheduler.queue_limit + len(self.scheduler.engine.slots)
        most = max(1, places // 2)
        if count > most:
            message = f"{count} replies in one request, this server takes {most}: ask for less"
            raise ApiError(400, f"{param}: {message}", param)

    # From a request to replies.

    def seed(self, wanted: int | None) -> int:
        """The seed of a request; one that names none gets the next of the server's own."""
        return self._seeds.getrandbits(31) if wanted is None else wanted

    def chat_prompt(
        self, messages: Sequence[ChatMessage], max_tokens: int, go_on: bool = False
    ) -> Prompt:
        """The prompt of a conversation, with room for a reply of `max_tokens` if it may be."""
        known = [message.message() for message in messages]
        return fit_conversation(self.tokenizer, known, self.context, max_tokens, go_on)

    def start(
        self, prompts: Sequence[Sequence[int]], body: SamplingFields, defaults: ChatWeb,
        raw: bool = False, opening: PartKind = "text", **scores: bool,
    ) -> Session:  # fmt: skip
        """Queues `n` replies a prompt, all prompts' in order; they come by iterating.

        What `body` leaves open is the default. `raw` and `opening` are the reader's, `scores`
        `alternatives` and `score_prompt` of the engine's requests. Raises RequestRefused for a
        prompt out of range, QueueFull when too many requests wait.
        """
        self.check_ready()  # the engine may have failed while the prompt was read
        self._mailbox.open()
        seed, prompt_tokens = self.seed(body.seed), sum(map(len, prompts))
        session = Session(self.scheduler, self._mailbox, self.counters, seed, prompt_tokens)
        try:
            for i, tokens in enumerate(tokens for tokens in prompts for _ in range(body.choices())):
                request = Request(
                    tuple(tokens), pick(body.max_tokens, defaults.max_tokens),
                    pick(body.temperature, defaults.temperature),
                    pick(body.top_k, defaults.top_k), pick(body.top_p, defaults.top_p),
                    derive_seed(seed, i), adapted=self.named(body.model) == self.model_id,
                    **body.adjustments(vars(defaults)), **scores,
                )  # fmt: skip
                session.add(request, ReplyReader(self.tokenizer, body.stops(), raw, opening))
        except BaseException:
            session.leave()  # those that were queued before the one that failed
            raise
        return session
