"""The host's copies of `Rows` and `Adjustments`, in numpy: written in place, sent as they are."""

from collections.abc import Iterable

import numpy as np

from nanochat_jax.config.decoding import MAX_BIASES
from nanochat_jax.serve.engine.adjust import Adjustments
from nanochat_jax.serve.engine.decode import Rows
from nanochat_jax.serve.engine.requests import Request, derive_seed
from nanochat_jax.serve.engine.slots import Slot
from nanochat_jax.serve.engine.tool_calls import ToolCalls


def idle_rows(slots: int, steps: int, adapters: bool = False) -> Rows:
    """Rows that do nothing; K = `steps`. `adapters`: the model has some, which each may use."""
    ints, flags = lambda *more: np.zeros((slots, *more), np.int32), lambda: np.zeros(slots, bool)
    return Rows(
        token_B=ints(), length_B=ints(), running_B=flags(), step_B=ints(), budget_B=ints(),
        in_call_B=flags(), run_on_B=flags(), temperature_B=np.zeros(slots, np.float32),
        top_k_B=ints(), top_p_B=np.ones(slots, np.float32), seed_B=np.zeros(slots, np.uint32),
        forced_BK=ints(steps), forced_count_B=ints(),
        adapted_B=np.zeros(slots, np.float32) if adapters else None,
    )  # fmt: skip


def set_request(rows: Rows, row: int, request: Request, room: int) -> None:
    """Gives a row the settings of a request that has `room` tokens of context left."""
    # `token_B`, `length_B` and what is forced change with every dispatch: `set_next`.
    rows.step_B[row] = 0
    rows.budget_B[row] = room if request.max_tokens is None else min(request.max_tokens, room)
    rows.run_on_B[row], rows.temperature_B[row] = request.run_on, request.temperature
    rows.top_k_B[row], rows.top_p_B[row] = request.top_k or 0, request.top_p
    rows.seed_B[row] = derive_seed(request.seed, 0)
    if rows.adapted_B is not None:
        rows.adapted_B[row] = request.adapted


def set_next(rows: Rows, row: int, token: int, calls: ToolCalls) -> None:
    """Says what a row feeds in the next dispatch, and which tokens it must choose there."""
    forced = calls.forced(rows.forced_BK.shape[1])
    rows.token_B[row], rows.in_call_B[row] = token, calls.in_call
    rows.forced_count_B[row] = len(forced)
    rows.forced_BK[row, : len(forced)] = forced


NO_TOKEN = np.iinfo(np.int32).max
NOTHING = Request(())


class AdjustedRows:
    """What each of `slots` rows asks for beyond `Rows`, and its tokens, up to `max_len`."""

    def __init__(self, slots: int, max_len: int, vocab_size: int):
        floats = lambda *more: np.zeros((slots, *more), np.float32)
        self._rows = Adjustments(
            asked_B=np.zeros(slots, bool), repetition_B=floats(), presence_B=floats(),
            frequency_B=floats(), min_p_B=floats(),
            bias_id_BE=np.zeros((slots, MAX_BIASES), np.int32), bias_BE=floats(MAX_BIASES),
            past_BS=np.zeros((slots, max_len), np.int32), prompt_B=np.zeros(slots, np.int32),
            V=vocab_size,
        )  # fmt: skip
        self._copied_B = np.zeros(slots, np.int32)  # tokens of `past_BS` that are there already
        for row in range(slots):
            self.set_request(row, NOTHING)

    def set_request(self, row: int, request: Request) -> None:
        """Gives a row the settings of a request of which nothing is written yet."""
        rows, biases = self._rows, request.logit_bias
        rows.repetition_B[row], rows.min_p_B[row] = request.repetition_penalty, request.min_p
        rows.presence_B[row] = request.presence_penalty
        rows.frequency_B[row] = request.frequency_penalty
        rows.bias_id_BE[row], rows.bias_BE[row] = NO_TOKEN, 0.0
        rows.bias_id_BE[row, : len(biases)] = [token for token, _ in biases]
        rows.bias_BE[row, : len(biases)] = [bias for _, bias in biases]
        rows.past_BS[row], rows.prompt_B[row] = NO_TOKEN, len(request.tokens)
        self._copied_B[row] = 0

    def sent(self, running: Iterable[Slot], room: int) -> Adjustments:
        """What a dispatch over a cache of `room` tokens a row is told."""
        self._rows.asked_B[:] = False
        for slot in running:
            if slot.generation.request.adjusts:
                row, end = slot.row, len(slot.tokens)
                begin = self._copied_B[row]
                self._rows.past_BS[row, begin:end] = slot.tokens[begin:]
                self._rows.asked_B[row], self._copied_B[row] = True, end
        return self._rows.replace(past_BS=self._rows.past_BS[:, :room])
