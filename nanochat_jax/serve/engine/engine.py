"""The engine: many replies at once on one model, from a guide's loop to a server's queue.

`tick` is the whole of it: drop what was cancelled, prefill what waits, choose a few tokens for
every row. Who calls it decides the style: the guide's `generate` calls it until its own rows are
done, a server calls it in a thread for ever. Replies join and leave between ticks.
Source: nanochat:nanochat/engine.py (the API and the tool machine).
"""

import dataclasses
import itertools
from collections import deque
from collections.abc import Callable, Iterator, Sequence

import numpy as np
from jax.sharding import Mesh

from nanochat_jax.models.gpt import Model
from nanochat_jax.serve.engine.decode import DecodeOutput, Specials
from nanochat_jax.serve.engine.pool import Pool, idle_rows
from nanochat_jax.serve.engine.prefill import Prefiller, pairs
from nanochat_jax.serve.engine.requests import (
    Finish,
    Generation,
    ReplyTokens,
    Request,
    RequestRefused,
    SampledToken,
    derive_seed,
)
from nanochat_jax.serve.engine.slots import Slot, busy
from nanochat_jax.serve.engine.tools import run_tool
from nanochat_jax.serve.engine.weights import prepare, prepare_params
from nanochat_jax.tokenizer import Tokenizer

STEPS = 8  # tokens a row per dispatch: few enough to stream, enough to hide the host
FIRST_STEPS = 2  # while half of the rows or more wait for their first token
PREFILL_PER_TICK = 512  # tokens: a long prompt does not hold the other rows up
PATIENCE = 256  # dispatches before the cache shrinks: a long chat may go on in the meantime


class Engine:
    """Replies of `model`, `slots` at a time, each at most `max_len` tokens with its prompt.

    Weights and cache are cast once, to `dtype` (None: what the model computes in). `int8`: the
    matrices are kept in 8 bits. `mesh`: the slots are spread over its devices. `reuse`: prompts go
    on from cached beginnings. Not thread-safe: see `Scheduler`.
    """

    def __init__(
        self,
        model: Model,
        tokenizer: Tokenizer,
        *,
        slots: int = 8,
        max_len: int | None = None,
        dtype=None,
        int8: bool = False,
        mesh: Mesh | None = None,
        steps: int = STEPS,
        reuse: bool = True,
        tool: Callable[[str], object | None] = run_tool,
    ):
        self.model, self.int8 = prepare(model, dtype, int8), int8
        self.tokenizer, self.tool, self.steps = tokenizer, tool, steps
        self.max_len = max_len or model.cfg.sequence_len
        special = tokenizer.encode_special
        self.stop_tokens = (special("<|assistant_end|>"), tokenizer.get_bos_token_id())
        self._output = special("<|output_start|>"), special("<|output_end|>")
        self.specials = Specials(
            special("<|python_start|>"), special("<|python_end|>"), self.stop_tokens
        )
        size = {"slots": slots, "max_len": self.max_len, "steps": steps, "mesh": mesh}
        self.pool = Pool(self.model, self.specials, **size)
        self.slots = [Slot(row, self.pool.device_of(row)) for row in range(slots)]
        self._prefiller = Prefiller(self.pool, self.slots, reuse)
        self._rows = idle_rows(slots, steps)
        self._waiting: deque[Generation] = deque()
        self._updates: deque[tuple[Generation, Sequence[SampledToken]]] = deque()
        self._ticks = 0
        self._roomy = 0  # dispatches in a row that a shorter cache would have done for

    # What the guide uses.

    def generate(
        self,
        tokens: Sequence[int],
        num_samples: int = 1,
        max_tokens: int | None = None,
        temperature: float = 1.0,
        top_k: int | None = None,
        seed: int = 42,
    ) -> Iterator[tuple[list[int], list[int]]]:
        """Yields (token column, mask column), an entry per sample, as they are chosen.

        A row that has ended goes on until all have, as in the original; with more samples than
        slots it repeats its last token instead.
        """
        together = num_samples <= len(self.slots)
        request = self._request(tokens, max_tokens, temperature, top_k, seed, run_on=together)
        generations = self._submit_samples(request, num_samples)
        try:
            yield from self._columns(generations)
        finally:
            for generation in generations:
                generation.cancel()
            self._drop_cancelled()

    def generate_batch(
        self, tokens: Sequence[int], num_samples: int = 1, **settings
    ) -> tuple[list[list[int]], list[list[int]]]:
        """(sequences, masks) of `num_samples` replies, prompts included (mask 0), stop tokens not.

        Takes max_tokens, temperature, top_k and seed as `generate` does.
        """
        defaults = {"max_tokens": None, "temperature": 1.0, "top_k": None, "seed": 42}
        request = self._request(tokens, **{**defaults, **settings})
        replies = self._run(self._submit_samples(request, num_samples))
        sequences = [[*tokens, *reply.tokens] for reply in replies]
        return sequences, [[0] * len(tokens) + reply.masks for reply in replies]

    def complete(
        self,
        prompts: Sequence[Sequence[int]],
        max_tokens: int | None,
        temperature: float = 0.0,
        top_k: int | None = None,
        seed: int | Sequence[int] = 0,
    ) -> list[ReplyTokens]:
        """One reply to each of many prompts, in their order, as many at once as there are slots.

        `seed`: one for each prompt, or one from which each prompt's is derived.
        """
        derive = lambda i: seed[i] if isinstance(seed, Sequence) else derive_seed(seed, i)
        requests = (
            self._request(prompt, max_tokens, temperature, top_k, derive(i))
            for i, prompt in enumerate(prompts)
        )
        return self._run([self.submit(request) for request in requests])

    # What everything above, and the server, stands on.

    def submit(self, request: Request, on_update=None) -> Generation:
        """Queues a request. Raises RequestRefused for one that no model this size could answer."""
        self.check(request)
        return self.accept(Generation(request, on_update))

    def accept(self, generation: Generation) -> Generation:
        """Queues a generation whose request was checked."""
        self._waiting.append(generation)
        return generation

    def check(self, request: Request) -> None:
        """Raises RequestRefused when `request` is out of range; reads nothing that changes."""
        count, vocab_size = len(request.tokens), self.model.cfg.vocab_size
        if not 1 <= count <= self.max_len:
            raise RequestRefused(
                f"the prompt has {count} tokens, the model's context is {self.max_len}: "
                f"send 1 to {self.max_len} tokens"
            )
        if not all(0 <= token < vocab_size for token in request.tokens):
            raise RequestRefused(f"prompt token ids must lie in 0..{vocab_size - 1}")
        if request.temperature < 0:
            raise RequestRefused(f"temperature {request.temperature} is negative; 0 is greedy")
        if request.top_k is not None and request.top_k < 1:
            raise RequestRefused(f"top_k={request.top_k}; give 1 or more, or None for all")
        if not 0 < request.top_p <= 1:
            raise RequestRefused(f"top_p={request.top_p}; give a number above 0 and at most 1")

    @property
    def active(self) -> int:
        """Rows that are replying or loading."""
        return busy(self.slots)

    @property
    def devices(self) -> list[str]:
        """Names of the devices that hold the cache."""
        return self.pool.devices

    @property
    def waiting(self) -> int:
        """Requests that have no slot yet."""
        return len(self._waiting)

    def tick(self) -> bool:
        """Does one round of work; False when there was none."""
        self._ticks += 1
        self._drop_cancelled()
        worked = self._prefill()
        worked = self._decode() or worked
        if not self._rows.running_B.any():
            self._notify()
        return worked

    def warm_up(self) -> None:
        """Compiles all that serving needs. Only while nothing is running."""
        self.pool.warm_up()
        self.forget()

    def set_params(self, params: dict) -> None:
        """Goes on with other weights of the same shapes. Only while nothing is running."""
        self.pool.params = prepare_params(params, self.model.gpt.dtype, self.int8)
        self.forget()

    def forget(self) -> None:
        """Drops all cached prefixes. Only while nothing is running."""
        self._prefiller.forget()
        for slot in self.slots:
            slot.tokens, slot.cached, slot.used_at = [], 0, 0

    def _request(self, tokens, max_tokens, temperature, top_k, seed, run_on=False) -> Request:
        settings = max_tokens, float(temperature), top_k, 1.0, int(seed)
        return Request(tuple(int(token) for token in tokens), *settings, run_on=run_on)

    def _submit_samples(self, request: Request, count: int) -> list[Generation]:
        seeds = (derive_seed(request.seed, i) for i in range(count))
        return [self.submit(dataclasses.replace(request, seed=seed)) for seed in seeds]

    def _run(self, generations: list[Generation]) -> list[ReplyTokens]:
        while not all(generation.done for generation in generations):
            self.tick()
        return [generation.reply() for generation in generations]

    def _columns(self, generations: list[Generation]) -> Iterator[tuple[list[int], list[int]]]:
        ended = [False] * len(generations)
        for place in itertools.count():
            while any(
                len(generation.tokens) <= place and not generation.done
                for generation in generations
            ):
                self.tick()
            if all(ended) or all(len(generation.tokens) <= place for generation in generations):
                return
            column = [
                (generation.tokens[place : place + 1] or generation.tokens[-1:])[0]
                for generation in generations
            ]
            ended = [end or c.id in self.stop_tokens for end, c in zip(ended, column, strict=True)]
            yield [choice.id for choice in column], [int(choice.sampled) for choice in column]

    # Between ticks: who leaves, who joins.

    def _drop_cancelled(self) -> None:
        for generation in [generation for generation in self._waiting if generation.cancelled]:
            self._waiting.remove(generation)
            self._finish(generation, "cancelled")
        for slot in self.slots:
            if slot.generation is not None and slot.generation.cancelled:
                self._release(slot, "cancelled")

    def _finish(
        self, generation: Generation, reason: Finish, new: Sequence[SampledToken] = ()
    ) -> None:
        generation.finish_reason = reason
        self._updates.append((generation, new))

    def _release(self, slot: Slot, reason: Finish, new: Sequence[SampledToken] = ()) -> None:
        """Frees a slot; what its cache holds stays, for a next turn that begins the same."""
        self._prefiller.drop(slot)
        generation, slot.generation = slot.generation, None
        self._rows.running_B[slot.row] = False
        slot.tokens = slot.tokens[: slot.cached]
        self._finish(generation, reason, new)

    def fail_all(self) -> None:
        """Ends every reply as failed: the device gave an error that no retry would mend."""
        for slot in self.slots:
            if slot.generation is not None:
                self._release(slot, "failed")
        while self._waiting:
            self._finish(self._waiting.popleft(), "failed")
        self._notify()

    # Joining.

    def _prefill(self) -> bool:
        """Loads prompts into free slots, at most `PREFILL_PER_TICK` tokens of them on a device."""
        left = PREFILL_PER_TICK
        while left > 0 and self._prefiller.begin(self._waiting, self._ticks):
            count, loaded = self._prefiller.load()
            left -= count
            if loaded:
                self._start(loaded)
        return left < PREFILL_PER_TICK

    def _start(self, loaded: Sequence[Slot]) -> None:
        """Moves loaded prompts into their rows and sets the rows' settings."""
        for slot in loaded:
            self._set_up(slot)
        self._fit(max(slot.cached for slot in loaded))
        self.pool.put([slot.row for slot in loaded])
        for slot in loaded:
            self._rows.running_B[slot.row] = True
            if self._rows.budget_B[slot.row] <= 0:
                self._release(slot, "length")

    def _set_up(self, slot: Slot) -> None:
        request, row, rows = slot.generation.request, slot.row, self._rows
        room = self.max_len - len(request.tokens)
        slot.tokens, slot.cached = list(request.tokens), len(request.tokens) - 1
        slot.expression = self._open_call(request.tokens)
        slot.forced.clear()
        rows.step_B[row] = 0
        rows.budget_B[row] = room if request.max_tokens is None else min(request.max_tokens, room)
        rows.run_on_B[row], rows.temperature_B[row] = request.run_on, request.temperature
        rows.top_k_B[row], rows.top_p_B[row] = request.top_k or 0, request.top_p
        rows.seed_B[row] = derive_seed(request.seed, 0)

    def _fit(self, need: int) -> None:
        """Gives the rows room for `need` tokens and for what the running rows hold.

        They grow at once. What idle rows keep for their chats is cut only when nobody has needed
        the length for a while.
        """
        held = [slot.cached for slot in self.slots if self._rows.running_B[slot.row]]
        need = min(max([need, *held]), self.max_len)
        self._roomy = self._roomy + 1 if self.pool.would_shrink(need) else 0
        idle = max(slot.cached for slot in self.slots)
        if self._roomy < PATIENCE:
            need = max(need, min(idle, self.pool.length))
        if self.pool.fit(need):
            for slot in self.slots:
                slot.cached = min(slot.cached, self.pool.length)

    # Replying.

    def _decode(self) -> bool:
        """One dispatch over all running rows.

        What the one before chose is told while this one computes: those who are told run beside
        the device, not beside what it waits for.
        """
        running = [slot for slot in self.slots if self._rows.running_B[slot.row]]
        if not running:
            return False
        fresh = sum(self._rows.step_B[slot.row] == 0 for slot in running)
        steps = min(FIRST_STEPS, self.steps) if 2 * fresh >= len(running) else self.steps
        self._fit(max(slot.cached for slot in running) + steps)
        for slot in self.slots:
            # Idle rows too: what the model writes for them must land behind what they keep.
            self._rows.length_B[slot.row] = slot.cached
        for slot in running:
            self._set_row(slot)
        alternatives = any(slot.generation.request.alternatives for slot in running)
        on_its_way = self.pool.start(self._rows, steps, alternatives, running[-1].row + 1)
        self._notify()
        chunk = self.pool.read(on_its_way)
        for slot in running:
            self._take_choices(slot, chunk)
        return True

    def _set_row(self, slot: Slot) -> None:
        rows, row = self._rows, slot.row
        rows.token_B[row] = slot.tokens[-1]
        rows.in_python_B[row] = slot.expression is not None
        forced = list(itertools.islice(slot.forced, self.steps))
        rows.forced_count_B[row] = len(forced)
        rows.forced_BK[row, : len(forced)] = forced

    def _take_choices(self, slot: Slot, chunk: DecodeOutput) -> None:
        """Books what the dispatch chose for one row, and ends the reply if that was all."""
        generation, row = slot.generation, slot.row
        count = int(np.count_nonzero(chunk.valid_KB[:, row]))
        alternatives = [()] * count
        if generation.request.alternatives:
            alternatives = pairs(chunk.top_id_KBN[:count, row], chunk.top_logprob_KBN[:count, row])
        tokens, logprobs = (
            chunk.token_KB[:count, row].tolist(),
            chunk.logprob_KB[:count, row].tolist(),
        )
        new = []
        for token, logprob, top in zip(tokens, logprobs, alternatives, strict=True):
            new.append(SampledToken(token, not slot.forced, logprob, top))
            if slot.forced:
                slot.forced.popleft()
            self._follow_tool(slot, token)
        generation.tokens += new
        slot.tokens += [choice.id for choice in new]
        slot.cached += len(new)
        self._rows.step_B[row] += len(new)
        self._rows.budget_B[row] -= len(new)
        if new[-1].id in self.stop_tokens and not generation.request.run_on:
            self._release(slot, "stop", new)
        elif self._rows.budget_B[row] <= 0:
            self._release(slot, "length", new)
        else:
            self._updates.append((generation, new))

    def _notify(self) -> None:
        """Tells the generations what has happened to them."""
        while self._updates:
            generation, new = self._updates.popleft()
            notify = generation.on_update  # read once: who no longer listens takes it away
            if notify is not None:
                notify(generation, new)

    def _open_call(self, prompt: Sequence[int]) -> list[int] | None:
        """What stands of a tool call that the prompt ends within; None where it ends in none."""
        borders = self.specials.python_end, self.tokenizer.encode_special("<|assistant_start|>")
        for i in range(len(prompt) - 1, -1, -1):
            if prompt[i] in borders:
                return None
            if prompt[i] == self.specials.python_start:
                return list(prompt[i + 1 :])
        return None

    def _follow_tool(self, slot: Slot, token: int) -> None:
        """The original's tool machine: collects a Python block, forces its result as tokens."""
        if token == self.specials.python_start:
            slot.expression = []
        elif token == self.specials.python_end and slot.expression is not None:
            if slot.expression:
                result = self.tool(self.tokenizer.decode(slot.expression))
                if result is not None:
                    start, end = self._output
                    slot.forced.extend([start, *self.tokenizer.encode(str(result)), end])
            slot.expression = None
        elif slot.expression is not None:
            slot.expression.append(token)
