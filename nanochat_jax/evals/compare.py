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
from nanochat_jax.config import paths
from nanochat_jax.evals.chatcore.catalog import BASELINES

RESAMPLES = 20_000
# The same training run from other seeds gives another CORE. Sources: seven runs of the original's
# d24 (its dev/LOG.md: 0.2537, 0.2584, 0.2549, 0.2568, 0.2573, 0.2677, 0.2512); others report 0.002
# to 0.003 at GPT-2's grade.
CORE_SEEDS = "the same d24 run from seven seeds: standard deviation 0.005"
# Why a task is left out.
UNLIKE = "for the questions differ"
UNFINISHED = "for not all questions are answered (the same scripts.eval command answers the rest)"


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
        a, b: folders of answers, or their names in `paths.evaluations`.

    Raises:
        FileNotFoundError: no such folder; the message lists those there are.
        ValueError: not one task was answered whole by both, of the same questions.
    """
    left, right = (_folder(name, root) for name in (a, b))
    lines, left_out = [f"A: {left}", f"B: {right}"], []
    for group, metric in (("core", "CORE"), ("chat", "ChatCORE")):
        pairs, others = _pairs(left / group, right / group)
        left_out += others
        if pairs:
            lines += ["", *table(pairs, metric)]
    tasks = {
        why: [task for other, task in left_out if other == why] for why in (UNLIKE, UNFINISHED)
    }
    reasons = [f"{why}: {', '.join(names)}" for why, names in tasks.items() if names]
    if len(lines) == 2:
        raise ValueError("; ".join([f"{left} and {right} have no task in common that both answered "
                                    "whole, of the same questions", *reasons]))  # fmt: skip
    if reasons:
        lines += ["", *(f"left out, {reason}" for reason in reasons)]
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


def _pairs(left: pathlib.Path, right: pathlib.Path) -> tuple[list[Pair], list[tuple[str, str]]]:
    """(tasks that both answered whole, the others as (reason, name))."""
    found, left_out = [], []
    for path in sorted(left.glob("*.jsonl")):
        if not (right / path.name).exists():
            continue
        (first, *ours), (second, *theirs) = map(files.read_json_lines, (path, right / path.name))
        task = first["task"]
        one, two = ({line["question"]: bool(line["correct"]) for line in x} for x in (ours, theirs))
        whole = first["questions"]
        if first["rows"] != second["rows"]:
            left_out.append((UNLIKE, task))
            continue
        if not len(one) == len(two) == whole:
            left_out.append((UNFINISHED, f"{task} (A {len(one)}, B {len(two)} of {whole})"))
            continue
        counted = [0, 0, 0, 0]
        for question, right_a in one.items():
            counted[2 * (not right_a) + (not two[question])] += 1
        both, only_a, only_b, neither = counted
        baseline = BASELINES.get(task, first.get("baseline", 0.0))
        found.append(Pair(task, both, only_a, only_b, neither, baseline))
    return found, left_out


def _folder(name: str, root: pathlib.Path) -> pathlib.Path:
    """A folder of answers by its path or its name."""
    for folder in (pathlib.Path(name).expanduser(), paths.answers(root, name)):
        if (folder / "core").is_dir() or (folder / "chat").is_dir():
            return folder
    folders = sorted(p.name for p in paths.evaluations(root).glob("*") if p.is_dir())
    raise FileNotFoundError(
        f"no answers in {name}, nor in {folder}; found {', '.join(folders) or 'none'}; "
        "python -m scripts.eval writes them"
    )
