"""Problems answered in writing: many at once by a pool of engines, each answer graded.

What evaluation and reinforcement learning share. Each device has an engine and a thread that
drives it; answers are graded while the next ones are sampled. An answer depends on its prompt and
its own seed, not on what else is sampled or where.
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
from jax.sharding import Mesh

from nanochat_jax.hosts import group
from nanochat_jax.models.gpt import Model
from nanochat_jax.serve.engine import Engine
from nanochat_jax.serve.engine.requests import Generation, Request
from nanochat_jax.tasks import Conversation, Task
from nanochat_jax.tokenizer import Tokenizer

Grader = Callable[[Conversation, str], float]
# Answers at once on each device. On two CPU cores 48 problems took 2.9 s one by one, 0.64 s with 16
# rows, 0.79 s with 32 (docs/log.md).
CPU_SLOTS, ACCELERATOR_SLOTS = 16, 128


@dataclasses.dataclass(frozen=True)
class SamplingParams:
    """How answers are sampled; the original's `-n -m -t -k`. Temperature 0 is greedy."""

    num_samples: int = 1
    max_new_tokens: int = 512
    temperature: float = 0.0
    top_k: int | None = 50
    seed: int = 42

    def seeds(self, problem: int) -> list[int]:
        """A 32-bit seed for each answer to a problem."""
        # Hashed, not seed + number: neighbouring problems would share all but one of their seeds.
        streams = np.random.SeedSequence((self.seed, problem)).generate_state(self.num_samples)
        return [int(x) for x in streams]


class GradedAnswer(NamedTuple):
    """One answer, without its prompt."""

    tokens: list[int]  # without the stop token
    masks: list[int]  # 1 sampled, 0 by the tool
    stop_token: int | None  # the token that ended it; None where the length did
    text: str  # the tokens as text, tool calls included
    grade: float  # 1.0 right, 0.0 wrong


class GradedProblem(NamedTuple):
    """A problem with all its answers; `prompt` lost its beginning where it is `cropped`."""

    index: int
    prompt: list[int]
    cropped: bool
    answers: list[GradedAnswer]

    @property
    def right(self) -> int:
        """How many of the answers are right."""
        return sum(a.grade > 0 for a in self.answers)


class Problem(NamedTuple):
    """A problem to answer: its row in the task, its conversation and prompt."""

    index: int
    conversation: Conversation
    prompt: list[int]
    cropped: bool


class EnginePool:
    """One engine on each device of a mesh (None: where the parameters are).

    `max_len`: tokens of a prompt with its answer, at most; `slots`: answers that each engine
    samples at once (None: by the kind of device).
    """

    def __init__(
        self, model: Model, tokenizer: Tokenizer, *, max_len: int, slots: int | None = None,
        mesh: Mesh | None = None,
    ):  # fmt: skip
        # Whole engines side by side, not one over the mesh: answers know nothing of each other, so
        # the devices need not talk at every token.
        slots = slots or (CPU_SLOTS if jax.default_backend() == "cpu" else ACCELERATOR_SLOTS)
        self.tokenizer, self.max_len = tokenizer, max_len
        self.devices = [d for d in mesh.devices.flat if d in mesh.local_devices] if mesh else [None]
        self.engines = []
        for device in self.devices:
            here = dataclasses.replace(model, params=_on(device, model.params))
            with _default(device):
                self.engines.append(Engine(here, tokenizer, slots=slots, max_len=max_len))

    def set_params(self, params: Any) -> None:
        """Continues with other weights of the same shapes."""
        for device, engine in zip(self.devices, self.engines, strict=True):
            with _default(device):
                engine.set_params(_on(device, params))

    def release(self) -> None:
        """Gives the devices' memory back until `set_params`; what was compiled stays."""
        for engine in self.engines:
            engine.release()

    def problem(self, index: int, conversation: Conversation, sampling: SamplingParams) -> Problem:
        """The problem with as much of the end of its prompt as leaves room for an answer."""
        prompt = self.tokenizer.render_for_completion(conversation)
        # The end of a prompt is kept: there stand the question and the start of the answer.
        room = max(1, self.max_len - sampling.max_new_tokens)
        return Problem(index, conversation, prompt[-room:], len(prompt) > room)

    def generate(
        self, problems: Iterable[Problem], sampling: SamplingParams, *, in_turn: bool = False
    ) -> Iterator[tuple[Problem, list[Generation]]]:
        """Each problem with its finished generations, as they come to an end.

        `in_turn`: problem i goes to engine i modulo their number, so that each engine does the same
        work in every run, to the bit; else each takes the next when it has room.

        Raises:
            RequestRefused: a prompt longer than `max_len`, or settings out of range.
        """
        ready, stop, n = queue.Queue(), threading.Event(), len(self.engines)
        problems = list(problems) if in_turn else problems
        shares = [_shared(problems[i::n]) for i in range(n)] if in_turn else [_shared(problems)] * n
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
    pool: EnginePool, task: Task, problems: Iterable[int], sampling: SamplingParams, *,
    grade: Grader | None = None, in_turn: bool = False,
) -> Iterator[GradedProblem]:  # fmt: skip
    """The problems (rows) of a task with their graded answers, as they are ready. Several processes
    answer those of their own devices, and all get all at the end.

    `grade`: (conversation, text) -> 0.0 or 1.0 (None: the task's `score`); `in_turn`: see
    `EnginePool.generate`.
    """
    own = lambda problems: _answered(pool, task, problems, sampling, grade or task.score, in_turn)
    if group.count() > 1:
        return iter(group.divided(list(problems), own, len(pool.engines)))
    return own(problems)


def _answered(
    pool: EnginePool, task: Task, problems: Iterable[int], sampling: SamplingParams, grade: Grader,
    in_turn: bool,
) -> Iterator[GradedProblem]:  # fmt: skip
    """`answer` with this process's engines."""
    made = (pool.problem(i, task[i], sampling) for i in problems)
    mark = functools.partial(graded, pool.tokenizer, grade)
    # Grading in other threads keeps the device busy: a HumanEval program may run for seconds.
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as graders:
        waiting: deque = deque()
        for problem, generations in pool.generate(made, sampling, in_turn=in_turn):
            waiting.append(graders.submit(mark, problem, generations))
            while waiting and waiting[0].done():
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def pass_at_k(right: int, n: int, k: int) -> float:
    """The chance that one of k answers is right, estimated from n >= k of which `right` are.

    Source: arXiv:2107.03374 (Codex), equation 1. ValueError: k or `right` out of range.
    """
    if not 0 <= right <= n or not 1 <= k <= n:
        raise ValueError(f"expected 0 <= right <= n and 1 <= k <= n, got {right=}, {n=}, {k=}")
    # The mean over every choice of k among the n samples: unbiased, and less noisy than looking at
    # the first k alone. 1 - (1 - right/n)^k, which also comes to mind, is biased low.
    return 1.0 - math.comb(n - right, k) / math.comb(n, k)


def graded(
    tokenizer: Tokenizer, grade: Grader, problem: Problem, generations: Sequence[Generation]
) -> GradedProblem:
    """The problem with its finished generations, each as text with its grade."""
    answers = []
    for generation in generations:
        done = generation.reply()
        text = tokenizer.decode(done.tokens)
        stop_token = generation.tokens[-1].id if done.finish_reason == "stop" else None
        value = float(grade(problem.conversation, text))
        answers.append(GradedAnswer(done.tokens, done.masks, stop_token, text, value))
    return GradedProblem(problem.index, problem.prompt, problem.cropped, answers)


def _shared(things: Iterable[Problem]) -> Callable[[], Problem | None]:
    """What several threads take the next problem with; None when there are no more."""
    rest, lock = iter(things), threading.Lock()

    def take() -> Problem | None:
        with lock:
            return next(rest, None)

    return take


def _drive(
    engine: Engine, take: Callable[[], Problem | None], sampling: SamplingParams,
    ready: queue.Queue, stop: threading.Event,
) -> None:  # fmt: skip
    """Answers what it can take until there is no more; None on the queue says so."""
    running: list[tuple[Problem, list[Generation]]] = []
    finished = lambda pair: all(generation.done for generation in pair[1])
    try:
        while not stop.is_set():
            # As many wait as there are slots, so that a slot that falls free is filled at once.
            while engine.waiting < len(engine.slots) and (problem := take()) is not None:
                running.append((problem, _submit(engine, problem, sampling)))
            if not running:
                break
            engine.tick()
            for pair in filter(finished, running):
                ready.put(pair)
            running = list(itertools.filterfalse(finished, running))
    except BaseException as error:  # it is raised where the answers are read
        ready.put(error)
    finally:
        # The engine is used again: whatever is under way must leave its slots.
        for generation in itertools.chain(*(generations for _, generations in running)):
            generation.cancel()
        while running and engine.tick():
            pass
        ready.put(None)


def _submit(engine: Engine, problem: Problem, s: SamplingParams) -> list[Generation]:
    request = Request(tuple(problem.prompt), s.max_new_tokens, float(s.temperature), s.top_k)
    one = lambda seed: engine.submit(dataclasses.replace(request, seed=seed))
    return [one(seed) for seed in s.seeds(problem.index)]


def _default(device: Any) -> contextlib.AbstractContextManager:
    """Where arrays are made that belong nowhere yet: on a device (None: JAX's first)."""
    return jax.default_device(device) if device else contextlib.nullcontext()


def _on(device: Any, params: Any) -> Any:
    """The parameters whole on a device (None: where they are)."""
    if device is None:
        return params
    return jax.tree.map(lambda x: jax.device_put(_part_on(device, x), device), params)


def _part_on(device: Any, x: jax.Array) -> jax.Array:
    """What lies on the device of an array that lies whole on each of several processes' devices."""
    if x.is_fully_addressable:
        return x
    return next(shard.data for shard in x.addressable_shards if shard.device == device)
