"""What CORE comes to: grades of questions, scores of tasks, their mean, and how sure they are."""

import dataclasses
import math
import pathlib
from collections.abc import Sequence
from typing import Any

from nanochat_jax import files
from nanochat_jax.evals.core.bundle import CoreTask
from nanochat_jax.evals.core.prompts import Example
from nanochat_jax.evals.core.scoring import RowScore
from nanochat_jax.evals.shares import MeanResult, Share


@dataclasses.dataclass(frozen=True)
class CoreTaskResult(Share):
    """A task's score."""

    shots: int  # solved examples before each question; fewer than the task's where rows were few
    cropped: int = 0  # questions whose beginning did not fit
    mended: int = 0  # questions with nothing to score as they stand; see `prompts.mended`
    right: Sequence[bool] = dataclasses.field(default=(), repr=False)  # of each question


class CoreResult(MeanResult):
    """CORE, of the tasks that could be scored, in the bundle's order."""

    name = "CORE"

    @property
    def cropped(self) -> int:
        return sum(t.cropped for t in self.tasks.values())


def grade(task: CoreTask, example: Example, scores: Sequence[RowScore]) -> dict[str, Any]:
    """What is kept of a question: whether it was right, and why; JSON values.

    The least mean loss is chosen, the first on ties; a continuation must be predicted whole.
    """
    if task.kind == "language_modeling":
        # Right only if every token of the continuation is the likeliest one after those before it:
        # what greedy decoding would write, found in one forward pass.
        (row,), (got,) = example.rows, scores
        wanted = row.ids[row.start : row.end].tolist()
        best = got.best.tolist()
        found = {"correct": bool(wanted) and best == wanted, "predicted": best, "wanted": wanted}
        found["losses"] = [round(float(x), 6) for x in got.nll]
    else:
        # The mean a token, not the sum: a sum would prefer short options. What has nothing to score
        # even now (an empty prompt with an empty option) is not chosen.
        means = [float(s.nll.mean()) if s.nll.size else math.inf for s in scores]
        chosen = means.index(min(means))
        found = {"correct": chosen == example.gold, "chosen": chosen, "gold": example.gold}
        found["mean_losses"] = [round(x, 6) if math.isfinite(x) else None for x in means]
    tokens = sum(len(r.ids) for r in example.rows)
    return found | {"tokens": tokens, "cropped": example.cropped, "mended": example.mended}


def notes(result: CoreResult) -> str:
    """What was not as the original would have it, as a Markdown list."""
    mended = sum(task.mended for task in result.tasks.values())
    counts = {
        "questions cut at their beginning to fit": result.cropped,
        "questions with nothing to score as they stand": mended,
    }
    lines = [f"- not scored: {label} ({why})" for label, why in result.skipped.items()]
    return "\n".join(lines + [f"- {count} {what}" for what, count in counts.items() if count])


def write_csv(result: CoreResult, path: pathlib.Path) -> None:
    """The table that the original's base_eval writes."""
    lines = [("Task", "Accuracy", "Centered")]
    lines += [(k, f"{t.accuracy:.6f}", f"{t.centered:.6f}") for k, t in result.tasks.items()]
    lines.append(("CORE", "", f"{result.metric:.6f}"))
    files.write_text(path, "".join(f"{a:<35}, {b:<10}, {c:<10}\n" for a, b, c in lines))
