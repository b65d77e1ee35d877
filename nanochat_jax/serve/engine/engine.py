"""The engine: many replies at once on one model, from a guide's loop to a server's queue.

`tick` is the whole of it: drop what was cancelled, prefill what waits, choose a few tokens for
every row. Who calls it decides the style: the guide's `generate` calls it until its own rows are
done, a server calls it in a thread for ever. Replies join and leave between ticks.
Source: nanochat:nanochat/engine.py (the API and the tool machine).
"""

import dataclasses
import itertools
import time
from collections import deque
from collections.abc import Iterator, Sequence

import numpy as np
from jax.sharding import Mesh

from nanochat_jax.models.gpt import Model
from nanochat_jax.serve.engine.decode import DecodeOutput, Specials
from nanochat_jax.serve.engine.pool import Pool
from nanochat_jax.serve.engine.prefill import Prefiller
from nanochat_jax.serve.engine.requests import (
    Finish,
    Generation,
    ReplyTokens,
    Request,
    ScoredToken,
    derive_seed,
    scored_tokens,
)
from nanochat_jax.serve.engine.rows import idle_rows, set_next, set_request
from nanochat_jax.serve.engine.slots import Slot, busy
from nanochat_jax.serve.engine.tool_calls import ToolCalls
from nanochat_jax.serve.engine.tools import Tool, run_tool
from nanochat_jax.serve.engine.weights import prepare, prepare_params
from nanochat_jax.tokenizer import Tokenizer
from nanochat_jax.tokenizer.chat_format import PYTHON_END, PYTHON_START, stop_ids

STEPS = 8  # tokens a row per dispatch: few enough to stream, enough to hide the host
FIRST_STEPS = 2  # while half of the rows or more wait for their first token
PREFILL_PER_TICK = 512  # tokens: a long prompt does not hold the other rows up


class Engine:
    """Replies of `model`, `slots` at a time, each at most `max_len` tokens with its prompt.

    Weights and cache are cast once, to `dtype` (None: what the model computes in). `int8`: the
    matrices are kept in 8 bits. `mesh`: the slots are spread over its devices. `steps`: tokens of a
    row in one dispatch. `reuse`: prompts go on from cached beginnings. `tool` answers the model's
    calls. Not thread-safe: see `Scheduler`.
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
        tool: Tool = run_tool,
    ):
        # The weights lie in the pool alone: what they were made of may be let go.
        model = prepare(model, dtype, int8)
        self.gpt, self.int8 = model.gpt, int8
        self.tokenizer, self.tool, self.steps = tokenizer, tool, steps
        self.max_len = max_len or model.cfg.sequence_len
        special = tokenizer.encode_special
        self.stop_tokens = stop_ids(tokenizer)
        specials = Specials(special(PYTHON_START), special(PYTHON_END), self.stop_tokens)
        self.pool = Pool(model, specials, slots, self.max_len, steps, mesh)
        self.slots = [Slot(row, row % len(self.devices)) for row in range(slots)]
        self._prefiller = Prefiller(self.pool, self.slots, reuse)
        self._rows = idle_rows(slots, steps, self.pool.adapters)
        self._adjusted = self.pool.new_adjusted_rows()
        self._waiting: deque[Generation] = deque()
        self._updates: deque[tuple[Generation, Sequence[ScoredToken]]] = deque()
        self._ticks = 0

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
        request = _request(tokens, max_tokens, temperature, top_k, seed, run_on=together)
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

        Takes max_tokens, temperature, top_k and seed as `generate` does, and what `Request` adds.
        """
        replies = self._run(self._submit_samples(_request(tokens, **settings), num_samples))
        sequences = [[*tokens, *reply.tokens] for reply in replies]
        return sequences, [[0] * len(tokens) + reply.masks for reply in replies]

    def complete(
        self, prompts: Sequence[Sequence[int]], max_tokens: int | None, temperature: float = 0.0,
        top_k: int | None = None, seed: int = 0,
    ) -> list[ReplyTokens]:  # fmt: skip
        """One reply to each of many prompts, in their order, as many at once as there are slots."""
        settings = max_tokens, temperature, top_k
        of = lambda i, prompt: _request(prompt, *settings, derive_seed(seed, i))
        return self._run([self.submit(of(*one)) for one in enumerate(prompts)])

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
        request.check(self.max_len, self.gpt.cfg.vocab_size)

    @property
    def active(self) -> int:
        """Rows that are replying or having their prompt read."""
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

    def warm_up(self, scores: bool = True, adjusts: bool = False) -> None:
        """Compiles all that serving needs, without `scores` what chatting does, whose replies all
        adjust logits or none does. Only while nothing is running."""
        self.pool.warm_up(scores, adjusts)
        self.forget()

    def set_params(self, params: dict) -> None:
        """Goes on with other weights of the same shapes. Only while nothing is running."""
        self.pool.set_params(prepare_params(params, self.gpt.dtype, self.int8))
        self.forget()

    def release(self) -> None:
        """Gives the device's memory back until `set_params`. Only while nothing is running."""
        self.pool.release()
        self.forget()

    def forget(self) -> None:
        """Drops all cached prefixes. Only while nothing is running."""
        self._prefiller.forget()
        for slot in self.slots:
            slot.tokens, slot.cached, slot.used_at = [], 0, 0

    def fail_all(self) -> None:
        """Ends every reply as failed: the device gave an error that no retry would mend."""
        for slot in self.slots:
            if slot.generation is not None:
                self._release(slot, "failed")
        while self._waiting:
            self._finish(self._waiting.popleft(), "failed")
        self._notify()

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
            while any(len(g.tokens) <= place and not g.done for g in generations):
                self.tick()
            if all(ended) or all(len(g.tokens) <= place for g in generations):
                return
            column = [(g.tokens[place : place + 1] or g.tokens[-1:])[0] for g in generations]
            ended = [end or t.id in self.stop_tokens for end, t in zip(ended, column, strict=True)]
            yield [token.id for token in column], [int(token.sampled) for token in column]

    # Between ticks: who leaves, who joins.

    def _drop_cancelled(self) -> None:
        for generation in [waiting for waiting in self._waiting if waiting.cancelled]:
            self._waiting.remove(generation)
            self._finish(generation, "cancelled")
        for slot in self.slots:
            if slot.generation is not None and slot.generation.cancelled:
                self._release(slot, "cancelled")

    def _finish(self, generation: Generation, reason: Finish, new: Sequence[ScoredToken] = ()):
        generation.finish_reason = reason
        self._updates.append((generation, new))

    def _release(self, slot: Slot, reason: Finish, new: Sequence[ScoredToken] = ()) -> None:
        """Frees a slot; what its cache holds stays, for a next turn that begins the same."""
        self._prefiller.drop(slot)
        generation, slot.generation = slot.generation, None
        self._rows.running_B[slot.row] = False
        slot.tokens = slot.tokens[: slot.cached]
        self._finish(generation, reason, new)

    def _prefill(self) -> bool:
        """Reads prompts into free slots, at most `PREFILL_PER_TICK` tokens of them on a device."""
        left = PREFILL_PER_TICK
        while left > 0 and self._prefiller.begin(self._waiting, self._ticks):
            count, ready = self._prefiller.read()
            left -= count
            if ready:
                self._start(ready)
        return left < PREFILL_PER_TICK

    def _start(self, ready: Sequence[Slot]) -> None:
        """Moves prompts that were read into their rows and sets the rows' settings."""
        for slot in ready:
            request = slot.generation.request
            slot.tokens, slot.cached = list(request.tokens), len(request.tokens) - 1
            slot.tool_calls = ToolCalls(self.tokenizer, self.tool, request.tokens)
            set_request(self._rows, slot.row, request, room=self.max_len - len(request.tokens))
            self._adjusted.set_request(slot.row, request)
        self._fit(max(slot.cached for slot in ready))
        self.pool.put([slot.row for slot in ready])
        for slot in ready:
            slot.generation.read_s = slot.generation.last_s = time.monotonic()
            self._rows.running_B[slot.row] = True
            if self._rows.budget_B[slot.row] <= 0:
                self._release(slot, "length")

    def _fit(self, need: int) -> None:
        """Gives the rows room for `need` tokens and for what the running rows hold."""
        held = [slot.cached for slot in self.slots if self._rows.running_B[slot.row]]
        need = min(max([need, *held]), self.max_len)
        if self.pool.fit(need, keep=max(slot.cached for slot in self.slots)):
            for slot in self.slots:
                slot.cached = min(slot.cached, self.pool.length)

    # Replying.

    def _decode(self) -> bool:
        """One dispatch over all running rows; False when there are none."""
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
            set_next(self._rows, slot.row, slot.tokens[-1], slot.tool_calls)
        more = any(slot.generation.request.asks_more for slot in running)
        asked = self._adjusted.sent(running, self.pool.length) if more else None
        pending = self.pool.start(self._rows, steps, running[-1].row + 1, asked)
        # Between start and read, so that the callbacks of the last dispatch run while the device
        # computes this one. After the read it would wait for them.
        self._notify()
        output = self.pool.read(pending)
        for slot in running:
            self._take(slot, output)
        return True

    def _take(self, slot: Slot, output: DecodeOutput) -> None:
        """Adds what a dispatch chose to one row's reply, and ends the reply if that was all."""
        generation, row = slot.generation, slot.row
        count = int(np.count_nonzero(output.valid_KB[:, row]))
        ids = output.token_KB[:count, row].tolist()
        N = output.top_id_KBN.shape[-1] if generation.request.alternatives else 0
        tops = (x[:count, row, :N] for x in (output.top_id_KBN, output.top_logprob_KBN))
        sampled = [slot.tool_calls.follow(token) for token in ids]
        new = scored_tokens(ids, sampled, output.logprob_KB[:count, row], *tops)
        generation.tokens += new
        generation.last_s = time.monotonic()
        slot.tokens += ids
        slot.cached += count
        self._rows.step_B[row] += count
        self._rows.budget_B[row] -= count
        if ids[-1] in self.stop_tokens and not generation.request.run_on:
            self._release(slot, "stop", new)
        elif self._rows.budget_B[row] <= 0:
            self._release(slot, "length", new)
        else:
            self._updates.append((generation, new))

    def _notify(self) -> None:
        """Calls `on_update` of every generation that has news."""
        while self._updates:
            generation, new = self._updates.popleft()
            notify = generation.on_update  # read once: another thread may take it away
            if notify is not None:
                notify(generation, new)


def _request(tokens, max_tokens=None, temperature=1.0, top_k=None, seed=42, **more):
    """In plain Python numbers, whatever the guide's arguments are made of."""
    settings = max_tokens, float(temperature), top_k, 1.0, int(seed)
    return Request(tuple(int(token) for token in tokens), *settings, **more)
