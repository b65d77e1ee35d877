"""How much was right, how sure that is, and what it means next to guessing."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, ClassVar

from nanochat_jax.results import Score

Z = 1.959964  # of a 95 % interval


@dataclasses.dataclass(frozen=True)
class Share:
    """`correct` of `n` questions; `baseline`: what guessing scores, in percent."""

    correct: int
    n: int
    baseline: float

    @property
    def accuracy(self) -> float:
        return self.correct / self.n

    @property
    def centered(self) -> float:
        """0 is guessing, 1 all right."""
        # Without it the mean over tasks would mostly say how many options each task has: guessing
        # scores 50 % of two options, 25 % of four, and nothing where the answer is free.
        return (self.accuracy - 0.01 * self.baseline) / (1.0 - 0.01 * self.baseline)

    @property
    def interval(self) -> tuple[float, float]:
        """Where the accuracy lies with 95 %. Source: Wilson, doi:10.1080/01621459.1927.10502953."""
        # The textbook interval, share +- Z sqrt(share (1 - share) / n), has no width at 0 of n or n
        # of n right, and leaves 0 to 1 near the ends: where a small model's scores lie.
        share, n, z2 = self.accuracy, self.n, Z * Z
        middle = (share + z2 / (2 * n)) / (1 + z2 / n)
        half = Z * math.sqrt(share * (1 - share) / n + z2 / (4 * n * n)) / (1 + z2 / n)
        return max(0.0, middle - half), min(1.0, middle + half)

    def score(self, name: str, **more: object) -> Score:
        """The share as the report keeps it."""
        chance = 0.01 * self.baseline
        return Score(name, self.accuracy, "share", *self.interval, self.n, chance=chance, **more)


def sign_test(one: int, other: int) -> float:
    """How likely it is that two which are alike differ so on the same questions, to either side.

    `one`, `other`: questions that only the one, and only the other, got right. Exact, so that it
    holds for few questions. Source: McNemar, doi:10.1007/BF02295996.
    """
    n, less = one + other, min(one, other)
    tail = sum(math.comb(n, k) for k in range(less + 1))
    return min(1.0, 2 * tail / 2**n)


def fisher_test(one: Share, other: Share) -> float:
    """How likely it is that two groups of questions that are alike differ so, to either side.

    Exact, so that it holds for few questions. Source: Fisher, doi:10.2307/2340521.
    """
    right, total = one.correct + other.correct, one.n + other.n
    ways = lambda n, k: math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)
    # Of the right ones so many fall into the first group; logarithms, for the numbers are long.
    could = range(max(0, right - other.n), min(one.n, right) + 1)
    log_p = {k: ways(one.n, k) + ways(other.n, right - k) - ways(total, right) for k in could}
    most = (
        log_p[one.correct] + 1e-7
    )  # those that are as likely are of the sum, whatever the rounding
    return min(1.0, sum(math.exp(p) for p in log_p.values() if p <= most))


@dataclasses.dataclass(frozen=True)
class MeanResult:
    """The mean of tasks' centered scores: what CORE and ChatCORE are.

    Args:
        tasks: name -> result, in the metric's order.
        skipped: name -> why it could not be scored; the mean is over the others.
    """

    name: ClassVar[str]
    tasks: Mapping[str, Any]
    skipped: Mapping[str, str]

    @property
    def total(self) -> int:
        """The tasks that belong to the metric."""
        return len(self.tasks) + len(self.skipped)

    @property
    def title(self) -> str:
        """The metric's name: `CORE`, or with tasks missing `CORE (21 of 22 tasks)`."""
        # A mean over fewer tasks is another number: it must not pass for the published one.
        found = len(self.tasks)
        return self.name if found == self.total else f"{self.name} ({found} of {self.total} tasks)"

    @property
    def details(self) -> list[Score]:
        """The scores of the tasks."""
        return [task.score(name) for name, task in self.tasks.items()]

    @property
    def metric(self) -> float:
        return sum(t.centered for t in self.tasks.values()) / len(self.tasks)

    @property
    def half_width(self) -> float:
        """Half of the metric's 95 % interval."""
        # The tasks' errors are independent, so the variances of their centered scores add up.
        widths = [
            (high - low) / 2 / (1 - 0.01 * t.baseline)
            for t in self.tasks.values()
            for low, high in [t.interval]
        ]
        return math.hypot(*widths) / len(widths)

    def score(self) -> Score:
        """The metric as the report keeps it."""
        low, high = self.metric - self.half_width, self.metric + self.half_width
        return Score(self.title, self.metric, low=low, high=high)
