"""The host's copy of `decode.Rows`, in numpy: written in place, sent with every dispatch."""

import numpy as np

from nanochat_jax.serve.engine.decode import Rows
from nanochat_jax.serve.engine.requests import Request, derive_seed
from nanochat_jax.serve.engine.tool_calls import ToolCalls


def idle_rows(slots: int, steps: int) -> Rows:
    """Rows that do nothing; K = `steps`."""
    ints, flags = lambda *more: np.zeros((slots, *more), np.int32), lambda: np.zeros(slots, bool)
    return Rows(
        token_B=ints(), length_B=ints(), running_B=flags(), step_B=ints(), budget_B=ints(),
        in_call_B=flags(), run_on_B=flags(), temperature_B=np.zeros(slots, np.float32),
        top_k_B=ints(), top_p_B=np.ones(slots, np.float32), seed_B=np.zeros(slots, np.uint32),
        forced_BK=ints(steps), forced_count_B=ints(),
    )  # fmt: skip


def set_request(rows: Rows, row: int, request: Request, room: int) -> None:
    """Gives a row the settings of a request that has `room` tokens of context left."""
    # `token_B`, `length_B` and what is forced change with every dispatch: `set_next`.
    rows.step_B[row] = 0
    rows.budget_B[row] = room if request.max_tokens is None else min(request.max_tokens, room)
    rows.run_on_B[row], rows.temperature_B[row] = request.run_on, request.temperature
    rows.top_k_B[row], rows.top_p_B[row] = request.top_k or 0, request.top_p
    rows.seed_B[row] = derive_seed(request.seed, 0)


def set_next(rows: Rows, row: int, token: int, calls: ToolCalls) -> None:
    """Says what a row feeds in the next dispatch, and which tokens it must choose there."""
    forced = calls.forced(rows.forced_BK.shape[1])
    rows.token_B[row], rows.in_call_B[row] = token, calls.in_call
    rows.forced_count_B[row] = len(forced)
    rows.forced_BK[row, : len(forced)] = forced
