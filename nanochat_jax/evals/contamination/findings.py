"""What was found of each task, counted, and its score without those rows."""

import dataclasses
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from nanochat_jax import files
from nanochat_jax.evals.contamination.index import Index
from nanochat_jax.evals.contamination.passages import Sought
from nanochat_jax.evals.shares import Share
from nanochat_jax.results import Check

EXAMPLES, LEAST_WORDS = 3, 4  # that are shown of a task; fewer words in a row show nothing
NAMED = 6  # tasks in a sentence


class Where(NamedTuple):
    """The words of a row that were found, how many, and the text that has them."""

    words: str
    length: int
    place: str


@dataclasses.dataclass(frozen=True)
class Findings:
    """One task.

    Args:
        n: words of a run.
        has_run_R: of each row, whether a run of so many words was looked for.
        whole_R: whether its question has fewer words, and was looked for whole.
        found: row -> the first place.
        right_R: whether it was answered right; None: no answers are kept.
    """

    name: str
    n: int
    has_run_R: np.ndarray
    whole_R: np.ndarray
    found: Mapping[int, Where]
    right_R: np.ndarray | None = None
    baseline: float = 0.0

    @property
    def dirty_R(self) -> np.ndarray:
        """The rows of which n words in a row were found."""
        marks = np.zeros(len(self.whole_R), bool)
        marks[[row for row, where in self.found.items() if where.length == self.n]] = True
        return marks

    @property
    def dirty(self) -> Share | None:
        """Those, of the rows with so many words; None without such rows."""
        total = int(self.has_run_R.sum())
        return Share(int(self.dirty_R.sum()), total, 0.0) if total else None

    @property
    def found_whole(self) -> Share | None:
        """Of the questions with fewer words, those found whole; what is counted as dirty is not
        counted again."""
        total = int(self.whole_R.sum())
        return Share(len(self.found) - int(self.dirty_R.sum()), total, 0.0) if total else None

    @property
    def score(self) -> Share | None:
        """The score of all rows; None where no answers are kept."""
        return self._score(np.ones(len(self.whole_R), bool))

    @property
    def clean(self) -> Share | None:
        """The score of all rows but the dirty ones; None too where those are all."""
        return self._score(~self.dirty_R)

    def _score(self, of_R: np.ndarray) -> Share | None:
        if self.right_R is None or not of_R.any():
            return None
        return Share(int(self.right_R[of_R].sum()), int(of_R.sum()), self.baseline)

    def examples(self) -> Iterator[str]:
        """Some rows, those with most words first, with what was found and where."""
        long = [row for row, where in self.found.items() if where.length >= LEAST_WORDS]
        for row in sorted(long, key=lambda row: (-self.found[row].length, row))[:EXAMPLES]:
            words, _, place = self.found[row]
            yield f"- {self.name}, row {row}: `{words}` in {place}"


def of_tasks(
    tasks: Mapping[str, Sought], index: Index, found: Mapping[int, Where], answers: pathlib.Path
) -> list[Findings]:
    """What was found, task by task.

    Args:
        found: by the index's numbers of rows.
        answers: the folder of an evaluation's answers; need not be there.
    """
    done, first = [], 0
    for name, sought in tasks.items():
        last = first + len(sought.passages)
        own = {row - first: where for row, where in found.items() if first <= row < last}
        done.append(Findings(
            name, index.n, index.has_run[first:last], index.whole[first:last], own,
            kept_marks(answers, name, sought), sought.baseline,
        ))  # fmt: skip
        first = last
    return done


def kept_marks(folder: pathlib.Path, name: str, sought: Sought) -> np.ndarray | None:
    """Whether each row was answered right, from the newest answers to these very rows; None
    without any, or where some are missing."""
    paths = (folder / sought.answers).glob("*.jsonl") if sought.answers else ()
    for path in sorted(paths, key=lambda path: path.stat().st_mtime, reverse=True):
        first, *lines = files.read_json_lines(path) or [{}]
        if (first.get("task"), first.get("rows")) == (name, sought.digest):
            marks = {line["question"]: bool(line["correct"]) for line in lines}
            if len(marks) == len(sought.passages):
                return np.array([marks[row] for row in range(len(marks))])
    return None


def table(found: Sequence[Findings]) -> str:
    """The counts as a Markdown table."""
    if not found:
        return ""
    count = lambda share: f"{share.correct} of {share.n}" if share else "-"
    score = lambda share: f"{100 * share.accuracy:.1f} ({_ends(share)})" if share else "-"
    head = (
        f"| task | rows | with {found[0].n} words in a row found | %, 95 % interval "
        "| shorter questions found whole | score %, all rows | score %, the others |"
    )
    rows = (
        f"| {f.name} | {len(f.whole_R)} | {count(f.dirty)} | {score(f.dirty)} "
        f"| {count(f.found_whole)} | {score(f.score)} | {score(f.clean)} |"
        for f in found
    )
    return "\n".join([head, "|---" * 7 + "|", *rows])


def checks(found: Sequence[Findings]) -> list[Check]:
    """The sentences below the scores: one for each task of which a row was found, and one for all
    others together."""
    dirty = [f for f in found if f.dirty_R.any()]
    said = [Check(f.name, _sentence(f), _sound(f)) for f in dirty]
    if clean := [f for f in found if f not in dirty]:
        rows = sum(int(f.has_run_R.sum()) for f in clean)
        what = f"none of {rows:,} rows shares {clean[0].n} words in a row with the training text"
        names = ", ".join(f.name for f in clean)
        few = names if len(clean) <= NAMED else f"{len(clean)} {'other ' * bool(dirty)}tasks"
        said.append(Check(few, what))
    return said


def _sentence(f: Findings) -> str:
    assert f.dirty is not None
    head = (
        f"{f.dirty.correct:,} of {f.dirty.n:,} rows ({100 * f.dirty.accuracy:.1f} %) share {f.n} "
        "words in a row with the training text"
    )
    if f.score is None:
        return head
    others = f"{100 * f.clean.accuracy:.1f} % ({_ends(f.clean)})" if f.clean else "none is left"
    return f"{head}; score {100 * f.score.accuracy:.1f} %, of the other rows {others}"


def _sound(f: Findings) -> bool:
    """Whether the score of the other rows may be that of all."""
    if f.score is None:
        return True
    low, high = f.clean.interval if f.clean else (1.0, 0.0)
    return low <= f.score.accuracy <= high


def _ends(share: Share) -> str:
    low, high = share.interval
    return f"{100 * low:.1f} to {100 * high:.1f}"
