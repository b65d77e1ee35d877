"""Two evaluations of the same questions, side by side, and whether their difference is one.

Two models answer the same questions, so each question is its own control: what counts is how many
only the one got right and how many only the other. Resampling those (a paired bootstrap) gives the
interval of the difference, which is far narrower than the two scores' own intervals suggest.
"""

import pathlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from nanochat_jax import files
from nanochat_jax.evals.chatcore.catalog import BASELINES

RESAMPLES = 20_000
# The same training run from other seeds gives another CORE. Sources: seven runs of the original's
# d24 (its dev/LOG.md: 0.2537, 0.2584, 0.2549, 0.2568, 0.2573, 0.2677, 0.2512); others report 0.002
# to 0.003 at GPT-2's grade.
CORE_SEEDS = "the same d24 run from seven seeds: standard deviation 0.005"


class Pair(NamedTuple):
    """One task of two evaluations.

    Args:
        both, only_a, only_b, neither: questions by who got them right.
        baseline: what guessing scores, in percent.
    """

    task: str
    both: int
    only_a: int
    only_b: int
    neither: int
    baseline: float

    @property
    def n(self) -> int:
        return self.both + self.only_a + self.only_b + self.neither

    @property
    def difference(self) -> float:
        """B's share of right answers less A's."""
        return (self.only_b - self.only_a) / self.n

    def resampled(self, rng: np.random.Generator) -> np.ndarray:
        """Differences of `RESAMPLES` draws of the questions, with replacement."""
        alike = self.both + self.neither
        shares = np.array([self.only_a, self.only_b, alike]) / self.n
        drawn = rng.multinomial(self.n, shares, RESAMPLES)
        return (drawn[:, 1] - drawn[:, 0]) / self.n


def compare(a: str, b: str, root: pathlib.Path) -> list[str]:
    """Lines for people.

    Args:
        a, b: folders of answers, or their names below `root`'s eval/.

    Raises:
        FileNotFoundError: no such folder; the message lists those there are.
        ValueError: not one task was asked of both with the same questions.
    """
    left, right = (_folder(name, root) for name in (a, b))
    lines, other = [f"A: {left}", f"B: {right}"], []
    for group, metric in (("core", "CORE"), ("chat", "ChatCORE")):
        pairs, unlike = _pairs(left / group, right / group)
        other += unlike
        if pairs:
            lines += ["", *table(pairs, metric)]
    if len(lines) == 2:
        raise ValueError(f"{left} and {right} have no task with the same questions in common"
                         + (f"; other questions: {', '.join(other)}" if other else ""))  # fmt: skip
    if other:
        lines += ["", f"left out, for the questions differ: {', '.join(other)}"]
    return lines


def table(pairs: Sequence[Pair], metric: str, seed: int = 0) -> list[str]:
    """The tasks, and the mean of their differences with chance taken away."""
    rng = np.random.default_rng(seed)
    lines = [
        f"| {metric} | n | A | B | B - A | 95 % | only A | only B |",
        "|---|---:|---:|---:|---:|---|---:|---:|",
    ]
    means = np.zeros(RESAMPLES)
    for pair in pairs:
        drawn = pair.resampled(rng)
        means += drawn / (1 - 0.01 * pair.baseline) / len(pairs)
        share = lambda right, n=pair.n: f"{100 * right / n:.1f} %"
        lines.append(
            f"| {pair.task} | {pair.n} | {share(pair.both + pair.only_a)} "
            f"| {share(pair.both + pair.only_b)} | {100 * pair.difference:+.1f} "
            f"| {_interval(100 * drawn, '.1f')} | {pair.only_a} | {pair.only_b} |"
        )
    mean = sum(p.difference / (1 - 0.01 * p.baseline) for p in pairs) / len(pairs)
    low, high = np.quantile(means, [0.025, 0.975])
    verdict = "a difference" if low > 0 or high < 0 else "no difference that these questions show"
    lines += ["", f"{metric} of these {len(pairs)} tasks, B - A: {mean:+.4f}, "
                  f"95 % {_interval(means, '.4f')}: {verdict}"]  # fmt: skip
    if metric == "CORE":
        lines.append(f"The interval is of the questions alone; training adds its own: {CORE_SEEDS}")
    return lines


def _interval(drawn: np.ndarray, form: str) -> str:
    low, high = np.quantile(drawn, [0.025, 0.975])
    return f"{low:+{form}} to {high:+{form}}"


def _pairs(left: pathlib.Path, right: pathlib.Path) -> tuple[list[Pair], list[str]]:
    """(tasks that both answered whole, names of those with other questions)."""
    found, unlike = [], []
    for path in sorted(left.glob("*.jsonl")):
        if not (right / path.name).exists():
            continue
        (first, *ours), (second, *theirs) = map(files.read_json_lines, (path, right / path.name))
        task = first["task"]
        one, two = ({line["question"]: bool(line["correct"]) for line in x} for x in (ours, theirs))
        whole = first["questions"]
        if first["rows"] != second["rows"] or not len(one) == len(two) == whole:
            unlike.append(task)
            continue
        counted = [0, 0, 0, 0]
        for question, right_a in one.items():
            counted[2 * (not right_a) + (not two[question])] += 1
        both, only_a, only_b, neither = counted
        baseline = BASELINES.get(task, first.get("baseline", 0.0))
        found.append(Pair(task, both, only_a, only_b, neither, baseline))
    return found, unlike


def _folder(name: str, root: pathlib.Path) -> pathlib.Path:
    """A folder of answers by its path or its name."""
    for folder in (pathlib.Path(name).expanduser(), root / "eval" / name):
        if (folder / "core").is_dir() or (folder / "chat").is_dir():
            return folder
    there = ", ".join(sorted(p.name for p in (root / "eval").glob("*") if p.is_dir())) or "none"
    raise FileNotFoundError(
        f"no answers in {name}, nor in {root / 'eval' / name}; found {there}; "
        "python -m scripts.eval writes them"
    )
