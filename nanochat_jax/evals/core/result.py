"""What CORE comes to: marks of questions, scores of tasks, their mean, and how sure they are."""

import dataclasses
import math
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from nanochat_jax.evals.core.bundle import Task
from nanochat_jax.evals.core.prompts import Example
from nanochat_jax.evals.core.scoring import Score

Z = 1.959964  # of a 95 % interval


@dataclasses.dataclass(frozen=True)
class TaskResult:
    """A task's score.

    Args:
        accuracy, interval: share of right answers, and where it lies with 95 % (Wilson).
        centered: 0 is guessing, 1 all right; `baseline`: what guessing scores, in percent.
        shots: solved examples before each question; fewer than asked for where rows were few.
        cropped: questions whose beginning did not fit.
        mended: questions with nothing to score as they stand; see `prompts.mended`.
    """

    correct: int
    n: int
    baseline: float
    shots: int
    cropped: int = 0
    mended: int = 0

    @property
    def accuracy(self) -> float:
        return self.correct / self.n

    @property
    def centered(self) -> float:
        return centered(self.accuracy, self.baseline)

    @property
    def interval(self) -> tuple[float, float]:
        return wilson(self.correct, self.n)


@dataclasses.dataclass(frozen=True)
class CoreResult:
    """The mean of the tasks' centered scores.

    Args:
        tasks: label -> result, in the bundle's order.
        skipped: label -> why it could not be scored; the mean is over the others.
        seconds: wall clock, tokenizing and compiling included.
    """

    tasks: Mapping[str, TaskResult]
    skipped: Mapping[str, str]
    seconds: float

    @property
    def core_metric(self) -> float:
        return sum(t.centered for t in self.tasks.values()) / len(self.tasks)

    @property
    def interval(self) -> tuple[float, float]:
        return self.core_metric - self.half_width, self.core_metric + self.half_width

    @property
    def half_width(self) -> float:
        """Half of its 95 % interval: the tasks' Wilson intervals, as independent errors."""
        widths = [
            (t.interval[1] - t.interval[0]) / 2 / (1 - 0.01 * t.baseline)
            for t in self.tasks.values()
        ]
        return math.hypot(*widths) / len(widths)

    @property
    def cropped(self) -> int:
        return sum(t.cropped for t in self.tasks.values())

    @property
    def title(self) -> str:
        """`CORE`, or with tasks missing `CORE (21 of 22 tasks)`."""
        total = len(self.tasks) + len(self.skipped)
        return f"CORE ({len(self.tasks)} of {total} tasks)" if self.skipped else "CORE"


def centered(accuracy: float, baseline: float) -> float:
    """Accuracy on a scale where `baseline` percent is 0 and all right is 1."""
    return (accuracy - 0.01 * baseline) / (1.0 - 0.01 * baseline)


def wilson(correct: int, n: int) -> tuple[float, float]:
    """The 95 % interval of a share. Source: Wilson 1927, doi:10.1080/01621459.1927.10502953."""
    share, z2 = correct / n, Z * Z
    middle = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = Z * math.sqrt(share * (1 - share) / n + z2 / (4 * n * n)) / (1 + z2 / n)
    return max(0.0, middle - half), min(1.0, middle + half)


def mark(task: Task, example: Example, scores: Sequence[Score]) -> dict[str, Any]:
    """What is kept of a question: whether it was right, and why; JSON values.

    The least mean loss is chosen, the first on ties; a continuation must be foretold whole.
    """
    if task.kind == "language_modeling":
        (row,), (got,) = example.rows, scores
        wanted = row.ids[row.start : row.end].tolist()
        best = got.best.tolist()
        found = {"correct": bool(wanted) and best == wanted, "predicted": best, "wanted": wanted}
        found["losses"] = [round(float(x), 6) for x in got.nll]
    else:
        # What has nothing to score even now (an empty prompt with an empty option) is not chosen.
        means = [float(s.nll.mean()) if s.nll.size else math.inf for s in scores]
        chosen = means.index(min(means))
        found = {"correct": chosen == example.gold, "chosen": chosen, "gold": example.gold}
        found["mean_losses"] = [round(x, 6) if math.isfinite(x) else None for x in means]
    flags = {"cropped": example.cropped, "mended": example.mended}
    return found | {"tokens": sum(len(r.ids) for r in example.rows)} | flags


def summed(task: Task, n: int, marks: Sequence[Mapping[str, Any]]) -> TaskResult:
    """The result of a task of `n` rows, all of them marked."""
    count = lambda key: sum(m[key] for m in marks)
    shots = min(task.shots, n - 1)
    return TaskResult(
        count("correct"), n, task.baseline, shots, count("cropped"), count("mended")
    )  # fmt: skip


def table(result: CoreResult) -> str:
    """The tasks as a Markdown table, and what was not as the original would have it."""
    lines = ["| task | accuracy % | 95 % interval | centered | n |", "|---|---|---|---|---|"]
    for label, t in result.tasks.items():
        low, high = (100 * x for x in t.interval)
        lines.append(
            f"| {label} | {100 * t.accuracy:.2f} | {low:.1f} to {high:.1f} | {t.centered:.4f} "
            f"| {t.n} |"
        )
    lines += ["", *(f"- not scored: {label} ({why})" for label, why in result.skipped.items())]
    told = {
        "cropped": "questions cut at their beginning to fit",
        "mended": "questions with nothing to score as they stand",
    }
    for name, what in told.items():
        if count := sum(getattr(t, name) for t in result.tasks.values()):
            lines.append(f"- {count} {what}")
    return "\n".join(lines).strip()


def write_csv(result: CoreResult, path: pathlib.Path) -> None:
    """The table that the original's base_eval writes, whole or not at all."""
    lines = [("Task", "Accuracy", "Centered")]
    lines += [(k, f"{t.accuracy:.6f}", f"{t.centered:.6f}") for k, t in result.tasks.items()]
    lines.append(("CORE", "", f"{result.core_metric:.6f}"))
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".tmp")
    part.write_text("".join(f"{a:<35}, {b:<10}, {c:<10}\n" for a, b, c in lines), encoding="utf-8")
    os.replace(part, path)
