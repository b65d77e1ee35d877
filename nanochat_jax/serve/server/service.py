"""The running server's one object: the scheduler, what a request becomes, and what is counted."""

import asyncio
import collections
import dataclasses
import time
from collections.abc import AsyncIterator, Sequence

from nanochat_jax.serve.engine.prompt import Prompt, fit_conversation
from nanochat_jax.serve.engine.requests import Generation, Request, SampledToken
from nanochat_jax.serve.engine.text import Piece, ReplyReader, merge
from nanochat_jax.serve.server.scheduler import Scheduler
from nanochat_jax.tokenizer import Tokenizer
from nanochat_jax.tokenizer.chat_format import Message

TTFT_BUCKETS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


@dataclasses.dataclass(frozen=True)
class Defaults:
    """What holds where a request says nothing; `top_k` 0 means all."""

    temperature: float = 0.8
    top_k: int = 50
    top_p: float = 1.0
    max_tokens: int = 512


class Reply:
    """One reply of a request as its reader sees it: pieces of text, tokens, how it ended."""

    def __init__(self, index: int, job: Generation, reader: ReplyReader):
        self.index, self.job, self._reader = index, job, reader
        self.pieces: list[Piece] = []
        self.choices: list[SampledToken] = []
        self.finish_reason: str | None = None

    def feed(
        self, new: Sequence[SampledToken], finish: str | None
    ) -> tuple[list[Piece], list[SampledToken]]:
        """Takes what the engine chose; returns what is new to show, and the tokens behind it."""
        shown, taken = [], []
        for choice in new[: len(new) - (finish == "stop")]:
            shown += self._reader.push(choice.id)
            taken.append(choice)
            if self._reader.stopped:
                break
        self.finish_reason = "stop" if self._reader.stopped else finish
        if self.finish_reason is not None:
            shown += self._reader.finish()
        shown = merge(shown)  # one event a dispatch, not one a token
        self.pieces += shown
        self.choices += taken
        return shown, taken

    @property
    def text(self) -> str:
        """What the reply says, without its tool calls."""
        return "".join(piece.text for piece in self.pieces if piece.kind == "text")


class Counters:
    """What `/metrics` and `/stats` tell."""

    def __init__(self):
        self.started = time.time()
        self.requests: collections.Counter[tuple[str, int]] = collections.Counter()
        self.prompt_tokens = self.cached_tokens = self.completion_tokens = 0
        self.ttft = [0] * (len(TTFT_BUCKETS) + 1)
        self.ttft_sum = 0.0

    def add(self, job: Generation, completion_tokens: int) -> None:
        """Books a reply that has ended or was left."""
        self.prompt_tokens += len(job.request.tokens)
        self.cached_tokens += job.cached_tokens
        self.completion_tokens += completion_tokens

    def first_token(self, seconds: float) -> None:
        """Books a time to first token."""
        place = sum(seconds > edge for edge in TTFT_BUCKETS)
        self.ttft[place] += 1
        self.ttft_sum += seconds


class EngineFailed(RuntimeError):
    """The engine's thread ended with an error; the log says which."""


class Mail:
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

    def post(self, queue: asyncio.Queue, news: tuple) -> None:
        """Puts `news` into `queue` soon; raises RuntimeError when the event loop is closed."""
        self._posted.append((queue, news))
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
            queue, news = self._posted.popleft()
            queue.put_nowait(news)


class Session:
    """The replies of one request on their way. Iterating yields what is new until all ended."""

    def __init__(self, service: "Service"):
        self._service, self._began = service, time.monotonic()
        self._queue: asyncio.Queue = asyncio.Queue()
        self._by_job: dict[Generation, Reply] = {}

    @property
    def replies(self) -> list[Reply]:
        """All replies, in the order of their requests."""
        return list(self._by_job.values())

    def add(self, job: Generation, reader: ReplyReader) -> None:
        """Adds a reply."""
        self._by_job[job] = Reply(len(self._by_job), job, reader)

    def tell(self, job: Generation, new: Sequence[SampledToken]) -> None:
        """Called in the engine's thread with what it chose."""
        try:
            self._service.mail.post(self._queue, (job, list(new), job.finish_reason))
        except RuntimeError:  # the event loop is gone: nobody listens any more
            job.cancel()

    async def __aiter__(self) -> AsyncIterator[tuple[Reply, list[Piece], list[SampledToken]]]:
        """Yields (reply, new pieces, new tokens); a reply that has ended is not seen again.

        Leaving early frees every slot.

        Raises EngineFailed when the engine dies.
        """
        try:
            while any(reply.finish_reason is None for reply in self._by_job.values()):
                job, new, finish = await self._queue.get()
                if self._by_job[job].finish_reason is None:
                    yield self._take(job, new, finish)
        finally:
            self.leave()

    async def finished(self) -> list[Reply]:
        """All replies, once all have ended."""
        async for _ in self:
            pass
        return self.replies

    def _take(self, job: Generation, new: list[SampledToken], finish: str | None):
        reply = self._by_job[job]
        if not reply.choices and new:
            self._service.counters.first_token(time.monotonic() - self._began)
        if finish in ("failed", "cancelled"):
            raise EngineFailed("the engine ended before the reply did")
        shown, taken = reply.feed(new, finish)
        if reply.finish_reason is not None and not job.done:
            self._service.scheduler.cancel(job)
        return reply, shown, taken

    def leave(self) -> None:
        """Frees what still runs and books the tokens; call it once."""
        for job, reply in self._by_job.items():
            if not job.done:
                self._service.scheduler.cancel(job)
            job.on_update = None  # else session and job would hold each other for a long time
            self._service.counters.add(job, len(reply.choices))


class Service:
    """What the routes share. Everything here runs in the event loop's thread."""

    def __init__(
        self, scheduler: Scheduler, tokenizer: Tokenizer, model_id: str, defaults: Defaults
    ):
        self.scheduler, self.tokenizer = scheduler, tokenizer
        self.model_id, self.defaults = model_id, defaults
        self.context = scheduler.engine.max_len
        self.counters, self.mail = Counters(), Mail()

    @property
    def ready(self) -> bool:
        """Compiled, healthy and not shutting down."""
        return self.scheduler.ready.is_set() and not self.scheduler.closing

    def chat_prompt(self, messages: Sequence[Message], max_tokens: int) -> Prompt:
        """The prompt of a conversation, with room for a reply of at most a quarter context."""
        reserve = min(max_tokens, self.context // 4)
        return fit_conversation(self.tokenizer, messages, self.context, reserve)

    def start(self, requests: Sequence[Request], stops: Sequence[str] = (), raw: bool = False):
        """Queues all `requests`; the session's replies then come by iterating over it.

        Raises RequestRefused for a request out of range, QueueFull when too many wait.
        """
        if self.scheduler.error is not None:
            raise EngineFailed("the engine has failed; the server's log says how")
        self.mail.open()
        session = Session(self)
        try:
            for request in requests:
                reader = ReplyReader(self.tokenizer, stops, raw)
                session.add(self.scheduler.submit(request, session.tell), reader)
        except BaseException:
            session.leave()
            raise
        return session

    def stats(self) -> dict:
        """How busy the engine is, in the original's words and ours."""
        engine, counters = self.scheduler.engine, self.counters
        slots, busy = len(engine.slots), engine.active
        return {
            "total_workers": slots,
            "available_workers": slots - busy,
            "busy_workers": busy,
            "workers": [{"gpu_id": i, "device": name} for i, name in enumerate(engine.devices)],
            "model": self.model_id,
            "context": self.context,
            "waiting": self.scheduler.waiting,
            "queue_limit": self.scheduler.queue_limit,
            "compilations": engine.pool.compilations,
            "cache_tokens_per_row": engine.pool.length,
            "cache_bytes": engine.pool.cache_bytes,
            "weight_bytes": engine.pool.weight_bytes,
            "int8": engine.int8,
            "uptime_s": round(time.time() - counters.started, 3),
            "prompt_tokens": counters.prompt_tokens,
            "cached_prompt_tokens": counters.cached_tokens,
            "completion_tokens": counters.completion_tokens,
        }

    def metrics(self) -> str:
        """The counters in Prometheus' text format."""
        stats, counters = self.stats(), self.counters
        gauges = ("busy_workers", "total_workers", "waiting", "compilations", "uptime_s")
        totals = ("prompt_tokens", "cached_prompt_tokens", "completion_tokens")
        lines = []
        for names, kind, end in ((gauges, "gauge", ""), (totals, "counter", "_total")):
            for name in names:
                lines += [
                    f"# TYPE nanochat_{name}{end} {kind}",
                    f"nanochat_{name}{end} {stats[name]}",
                ]
        lines.append("# TYPE nanochat_requests_total counter")
        for (path, status), count in sorted(counters.requests.items()):
            labels = f'path="{path}",status="{status}"'
            lines.append(f"nanochat_requests_total{{{labels}}} {count}")
        return "\n".join([*lines, *self._ttft_lines()]) + "\n"

    def _ttft_lines(self) -> list[str]:
        name, counters, seen = "nanochat_time_to_first_token_seconds", self.counters, 0
        lines = [f"# TYPE {name} histogram"]
        for edge, count in zip((*TTFT_BUCKETS, "+Inf"), counters.ttft, strict=True):
            seen += count
            lines.append(f'{name}_bucket{{le="{edge}"}} {seen}')
        return [*lines, f"{name}_sum {counters.ttft_sum:.6f}", f"{name}_count {seen}"]
