"""What ChatCORE comes to: scores of tasks, their mean, and how sure they are."""

import dataclasses
from collections.abc import Mapping

from nanochat_jax.evals.chatcore.catalog import BASELINES
from nanochat_jax.evals.shares import Share, half_width, mean_centered


@dataclasses.dataclass(frozen=True)
class ChatTaskResult(Share):
    """A task's score: problems of which at least one answer is right.

    Args:
        samples: answers to each problem.
        pass_at: k -> chance that one of k answers is right (1: the share of right answers).
        cropped: problems whose beginning did not fit.
        unfinished: answers that the limit of tokens ended.
    """

    samples: int = 1
    pass_at: Mapping[int, float] = dataclasses.field(default_factory=dict)
    cropped: int = 0
    unfinished: int = 0

    @property
    def cell(self) -> str:
        """The share in percent, and where it lies with 95 % (Wilson)."""
        low, high = self.interval
        return f"{100 * self.accuracy:.2f}% ({100 * low:.1f} to {100 * high:.1f})"


@dataclasses.dataclass(frozen=True)
class ChatResult:
    """The mean of the tasks' centered scores.

    Args:
        tasks: name -> result, in the order of ChatCORE.
        skipped: name -> why it could not be scored; the mean is over the others.
        seconds: wall clock, compiling included.
    """

    tasks: Mapping[str, ChatTaskResult]
    skipped: Mapping[str, str]
    seconds: float

    @property
    def metric(self) -> float:
        return mean_centered([*self.tasks.values()])

    @property
    def half_width(self) -> float:
        """Half of its 95 % interval."""
        return half_width([*self.tasks.values()])

    @property
    def title(self) -> str:
        """`ChatCORE metric`, or with tasks missing `ChatCORE metric (5 of 6 tasks)`."""
        missing = f" ({len(self.tasks)} of {len(BASELINES)} tasks)"
        return "ChatCORE metric" + missing * (len(self.tasks) < len(BASELINES))


def table(result: ChatResult) -> str:
    """The tasks as a Markdown table, and what a reader of the scores should know."""
    ks = sorted({k for task in result.tasks.values() for k in task.pass_at if k > 1})
    head = ["task", "accuracy %", "95 % interval", "centered", "n", *(f"pass@{k} %" for k in ks)]
    lines = [_row(head), _row(["---"] * len(head))]
    for name, t in result.tasks.items():
        low, high = (100 * x for x in t.interval)
        passes = (f"{100 * t.pass_at[k]:.2f}" if k in t.pass_at else "-" for k in ks)
        lines.append(
            _row([
                name, f"{100 * t.accuracy:.2f}", f"{low:.1f} to {high:.1f}", f"{t.centered:.4f}",
                str(t.n), *passes,
            ])
        )  # fmt: skip
    lines += ["", *(f"- not scored: {name} ({why})" for name, why in result.skipped.items())]
    for name, t in result.tasks.items():
        if t.cropped:
            lines.append(f"- {name}: {t.cropped} prompts cut at their beginning to fit")
        if t.unfinished:
            lines.append(f"- {name}: {t.unfinished} answers ended by the limit of tokens")
    return "\n".join(lines).strip()


def _row(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"
