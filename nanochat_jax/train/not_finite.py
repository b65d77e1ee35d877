"""A loss or a gradient that is not a number: what the step had read is written down.

The step itself has left parameters and moments as they were (`train/step.py`).
"""

import math
import pathlib
from collections.abc import Mapping
from functools import partial
from typing import Any

import jax

from nanochat_jax import files
from nanochat_jax.config import flags
from nanochat_jax.train import rollout_log
from nanochat_jax.train.curriculum import StepRows
from nanochat_jax.train.setup import Run
from nanochat_jax.train.trace import TracedStep

FOLDER = "not_finite"


class NotFinite(ValueError):
    """A run ends because a step was not finite."""


def is_so(numbers: Mapping[str, float]) -> bool:
    """Whether a step with those metrics was not made."""
    return not all(math.isfinite(numbers[f"train/{name}"]) for name in ("loss", "grad_norm"))


def write(run: Run, step: int, rows: StepRows, numbers: Mapping[str, float]) -> pathlib.Path:
    """Writes what the step had read into the checkpoint directory; returns the file."""
    process = f"-{jax.process_index()}" if jax.process_count() > 1 else ""
    path = run.directory / FOLDER / f"{step:06d}{process}.json"
    # As text: JSON has no number that is none.
    found = {name: str(numbers[f"train/{name}"]) for name in ("loss", "grad_norm")}
    files.write_json(path, {"step": step, **found} | _documents(run, step, rows))
    return path


def _documents(run: Run, step: int, rows: StepRows) -> dict[str, Any]:
    if run.curriculum.source is None or not rows.micros:
        return {"rollouts": f"{rollout_log.FOLDER}/{step:06d}.jsonl"} if run.stage == "rl" else {}
    traced = TracedStep(step, step, rows.micros, run.curriculum.source, run.tokenizer)
    pieces = (piece for row in range(len(traced.rows)) for piece in traced.traced(row))
    listed = [p._asdict() | {"origin": p.origin._asdict()} for p in pieces]
    return {"documents": listed}


def ends(run: Run, step: int, file: pathlib.Path) -> NotFinite:
    """What a person is told whose run stops at a step that is not finite."""
    command = partial(flags.to_go_on, run.directory.name) if step > 0 else flags.again
    return NotFinite(
        f"the loss or the gradient of step {step} is not finite, and its update was not made; what "
        f"it had read is in {file}; to go on without that type {command(on_nan='skip')}"
    )
