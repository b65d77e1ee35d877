"""Problems answered in writing: many at once by engines with their tool, each answer marked.

What evaluation and reinforcement learning share. Each device has an engine and a thread that
drives it; answers are marked while the next ones are written. An answer depends on its prompt and
its own seed, not on what else is written or where.
"""

import concurrent.futures
import contextlib
import dataclasses
import functools
import itertools
import math
import os
import queue
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh

from nanochat_jax.models.gpt import Model
from nanochat_jax.serve.engine import Engine
from nanochat_jax.serve.engine.requests import Generation, Request
from nanochat_jax.tasks import Task
from nanochat_jax.tasks.mixture import Conversation
from nanochat_jax.tokenizer import Tokenizer

Mark = Callable[[Conversation, str], float]
SLOTS = {"cpu": 16}  # answers at once on each device; elsewhere:
SLOTS_ELSEWHERE = 128


@dataclasses.dataclass(frozen=True)
class Sampling:
    """How answers are written; the original's `-n -m -t -k`. Temperature 0 is greedy."""

    num_samples: int = 1
    max_new_tokens: int = 512
    temperature: float = 0.0
    top_k: int | None = 50
    seed: int = 42

    def seeds(self, problem: int) -> list[int]:
        """A 32-bit seed for each answer to a problem, unlike those of its neighbours."""
        streams = np.random.SeedSequence((self.seed, problem)).generate_state(self.num_samples)
        return [int(x) for x in streams]


class Answer(NamedTuple):
    """One answer, without its prompt.

    Args:
        tokens, masks: what was written, without the token that ended it; 1 sampled, 0 by the tool.
        terminal: the token that ended it; None where the length did.
        text: the tokens as text, tool calls included.
        mark: 1.0 right, 0.0 wrong.
    """

    tokens: list[int]
    masks: list[int]
    terminal: int | None
    text: str
    mark: float


class Answered(NamedTuple):
    """A problem with all its answers; `prompt` lost its beginning where it is `cropped`."""

    problem: int
    prompt: list[int]
    cropped: bool
    answers: list[Answer]

    @property
    def right(self) -> int:
        """How many of the answers are right."""
        return sum(a.mark > 0 for a in self.answers)


class Asked(NamedTuple):
    """A problem on its way: its number, conversation and prompt."""

    problem: int
    conversation: Conversation
    prompt: list[int]
    cropped: bool


class Writers:
    """One engine on each device of a mesh (None: where the parameters are).

    Args:
        max_len: tokens of a prompt with its answer, at most.
        slots: answers that each engine writes at once (None: by the kind of device).
    """

    def __init__(
        self, model: Model, tokenizer: Tokenizer, *, max_len: int, slots: int | None = None,
        mesh: Mesh | None = None,
    ):  # fmt: skip
        slots = slots or SLOTS.get(jax.default_backend(), SLOTS_ELSEWHERE)
        self.tokenizer, self.max_len = tokenizer, max_len
        self.devices = [d for d in mesh.devices.flat if d in mesh.local_devices] if mesh else [None]
        self.engines = []
        for device in self.devices:
            here = dataclasses.replace(model, params=_on(device, model.params))
            with jax.default_device(device) if device else contextlib.nullcontext():
                self.engines.append(Engine(here, tokenizer, slots=slots, max_len=max_len))

    def set_params(self, params: Any) -> None:
        """Goes on with other weights of the same shapes."""
        for device, engine in zip(self.devices, self.engines, strict=True):
            engine.set_params(_on(device, params))

    def ask(self, problem: int, conversation: Conversation, sampling: Sampling) -> Asked:
        """The problem with as much of the end of its prompt as leaves room for an answer."""
        prompt = self.tokenizer.render_for_completion(conversation)
        room = max(1, self.max_len - sampling.max_new_tokens)
        return Asked(problem, conversation, prompt[-room:], len(prompt) > room)

    def write(
        self, asked: Iterable[Asked], sampling: Sampling, *, dealt: bool = False
    ) -> Iterator[tuple[Asked, list[Generation]]]:
        """(what was asked, its finished jobs), as they come to an end.

        Args:
            dealt: what is asked is dealt out to the engines in turn, so that each does the same
                work in every run, to the bit; else each takes the next when it has room.

        Raises:
            RequestRefused: a prompt longer than `max_len`, or settings out of range.
        """
        ready, stop, n = queue.Queue(), threading.Event(), len(self.engines)
        things = list(asked) if dealt else asked
        shares = [_Shared(things[i::n]) for i in range(n)] if dealt else [_Shared(things)] * n
        threads = [
            threading.Thread(target=_drive, args=(*pair, sampling, ready, stop), daemon=True)
            for pair in zip(self.engines, shares, strict=True)
        ]
        for thread in threads:
            thread.start()
        try:
            for _ in threads:
                while (found := ready.get()) is not None:
                    if isinstance(found, BaseException):
                        raise found
                    yield found
        finally:
            stop.set()
            for thread in threads:
                thread.join()


def answer(
    writers: Writers,
    task: Task,
    problems: Iterable[int],
    sampling: Sampling,
    *,
    mark: Mark | None = None,
    workers: int | None = None,
    dealt: bool = False,
) -> Iterator[Answered]:
    """The problems of a task with their marked answers, as they are ready.

    Args:
        problems: rows of the task.
        mark: (conversation, text) -> 0.0 or 1.0; None: the task's `score`.
        workers: answers marked at the same time (a sandbox waits for its program); None: one a
            core.
        dealt: see `Writers.write`.
    """
    asked = (writers.ask(i, task[i], sampling) for i in problems)
    marked = functools.partial(_marked, writers.tokenizer, mark or task.score)
    with concurrent.futures.ThreadPoolExecutor(workers or os.cpu_count() or 1) as pool:
        waiting: deque = deque()
        for question, jobs in writers.write(asked, sampling, dealt=dealt):
            waiting.append(pool.submit(marked, question, jobs))
            while waiting and waiting[0].done():
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def pass_at_k(right: int, n: int, k: int) -> float:
    """The chance that of k answers, drawn from n of which `right` are right, one is right.

    Unbiased where the mean of "any of the first k" is noisy. Source: arXiv:2107.03374, equation 1.
    """
    if not 0 <= right <= n or not 1 <= k <= n:
        raise ValueError(f"expected 0 <= right <= n and 1 <= k <= n, got {right=}, {n=}, {k=}")
    return 1.0 - math.comb(n - right, k) / math.comb(n, k)


def _marked(tokenizer: Tokenizer, mark: Mark, asked: Asked, jobs: Sequence[Generation]) -> Answered:
    answers = []
    for job in jobs:
        done = job.reply()
        text = tokenizer.decode(done.tokens)
        terminal = job.tokens[-1].id if done.finish_reason == "stop" else None
        right = float(mark(asked.conversation, text))
        answers.append(Answer(done.tokens, done.masks, terminal, text, right))
    return Answered(asked.problem, asked.prompt, asked.cropped, answers)


class _Shared:
    """An iterator that several threads take from."""

    def __init__(self, things: Iterable[Any]):
        self._things, self._lock = iter(things), threading.Lock()

    def take(self) -> Any | None:
        """The next thing; None when there are no more."""
        with self._lock:
            return next(self._things, None)


def _drive(
    engine: Engine, share: _Shared, sampling: Sampling, ready: queue.Queue, stop: threading.Event
) -> None:
    """Writes what it can take until there is no more; None on the queue says so."""
    running: list[tuple[Asked, list[Generation]]] = []
    try:
        while not stop.is_set():
            while engine.waiting < len(engine.slots) and (asked := share.take()) is not None:
                running.append((asked, _submit(engine, asked, sampling)))
            if not running:
                break
            engine.tick()
            for pair in running:
                if all(job.done for job in pair[1]):
                    ready.put(pair)
            running = [pair for pair in running if not all(job.done for job in pair[1])]
    except BaseException as error:  # it is raised where the answers are read
        ready.put(error)
    finally:
        for job in itertools.chain.from_iterable(jobs for _, jobs in running):
            job.cancel()
        while running and engine.tick():
            pass
        ready.put(None)


def _submit(engine: Engine, asked: Asked, s: Sampling) -> list[Generation]:
    make = lambda seed: Request(
        tuple(asked.prompt), s.max_new_tokens, float(s.temperature), s.top_k, seed=seed
    )
    return [engine.submit(make(seed)) for seed in s.seeds(asked.problem)]


def _on(device: Any, params: Any) -> Any:
    """The parameters whole on a device (None: where they are)."""
    if device is None:
        return params
    if not all(x.is_fully_addressable for x in jax.tree.leaves(params)):
        params = multihost_utils.process_allgather(params, tiled=True)
    return jax.device_put(params, device)
