"""What was found of each task, counted, and its score without those rows."""

import dataclasses
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from nanochat_jax import files
from nanochat_jax.evals.contamination.index import Index
from nanochat_jax.evals.contamination.passages import Sought
from nanochat_jax.evals.shares import Share, fisher_test
from nanochat_jax.results import Check

EXAMPLES, LEAST_WORDS = 3, 4  # that are shown of a task; fewer words in a row show nothing
NAMED = 6  # tasks in a sentence
LEVEL = 0.05  # of the test, as of the intervals of 95 %
FEW = 30  # rows: the interval of a score of fewer is a third of all there is


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

    @property
    def seen(self) -> Share | None:
        """The score of the dirty rows; None without any."""
        return self._score(self.dirty_R)

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
    tasks: Mapping[str, Sought], index: Index, found: Mapping[int, Where], answers: pathlib.Path,
    since: float,
) -> list[Findings]:  # fmt: skip
    """What was found, task by task.

    Args:
        found: by the index's numbers of rows.
        answers: the folder of an evaluation's answers; need not be there.
        since: when the model was written, in seconds; earlier answers were another one's.
    """
    done, first = [], 0
    for name, sought in tasks.items():
        last = first + len(sought.passages)
        own = {row - first: where for row, where in found.items() if first <= row < last}
        done.append(Findings(
            name, index.n, index.has_run[first:last], index.whole[first:last], own,
            kept_marks(answers, name, sought, since), sought.baseline,
        ))  # fmt: skip
        first = last
    return done


def kept_marks(
    folder: pathlib.Path, name: str, sought: Sought, since: float
) -> np.ndarray | None:  # fmt: skip
    """Whether each row was answered right, from the newest answers to these very rows; None
    without any since then, or where some are missing."""
    paths = (folder / sought.answers).glob("*.jsonl") if sought.answers else ()
    written = {path: path.stat().st_mtime for path in paths}
    # The folder is named by tag and step alone, which another model may have had before.
    own = (path for path, time in written.items() if time >= since)
    for path in sorted(own, key=written.__getitem__, reverse=True):
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
    """The sentences below the scores: one for each task of which a row was found, one for all
    others together, and one for those whose questions all have too few words."""
    dirty = [f for f in found if f.dirty_R.any()]
    clean = [f for f in found if f.dirty and not f.dirty.correct]
    short = [f for f in found if not f.dirty and f.found_whole]
    said = [_of_one(f) for f in dirty]
    if clean:
        rows = sum(int(f.has_run_R.sum()) for f in clean)
        what = f"none of {rows:,} rows shares {clean[0].n} words in a row with the training text"
        said.append(Check(_names(clean, bool(dirty)), what + _whole(clean)))
    if short:
        what = f"no row has {short[0].n} words in a row to look for{_whole(short)}"
        none = not any(f.found for f in short)
        said.append(Check(_names(short, len(said) > 0), what, none))
    return said


def _names(found: Sequence[Findings], other: bool) -> str:
    few = len(found) <= NAMED
    return ", ".join(f.name for f in found) if few else f"{len(found)} {'other ' * other}tasks"


def _whole(found: Sequence[Findings]) -> str:
    """How many of the questions with fewer words were found; empty without such."""
    shares = [f.found_whole for f in found if f.found_whole]
    count, total = (sum(getattr(s, of) for s in shares) for of in ("correct", "n"))
    told = f"; of {total:,} questions with fewer words {count:,} were found whole"
    return told + ", which may be chance" * (count > 0) if total else ""


def _of_one(f: Findings) -> Check:
    """The sentence of a task of which rows were found."""
    assert f.dirty is not None
    head = (
        f"{f.dirty.correct:,} of {f.dirty.n:,} rows ({100 * f.dirty.accuracy:.1f} %) share {f.n} "
        f"words in a row with the training text{_whole([f])}"
    )
    if f.score is None:
        return Check(f.name, f"{head}; there are no answers to compare", False)
    others = f"{100 * f.clean.accuracy:.1f} % ({_ends(f.clean)})" if f.clean else "none is left"
    sound, verdict = _verdict(f)
    scores = f"score {100 * f.score.accuracy:.1f} %, of the other rows {others}"
    return Check(f.name, f"{head}; {scores}{verdict}", sound)


def _verdict(f: Findings) -> tuple[bool, str]:
    """Whether the score of the other rows may be that of all."""
    if f.clean is None or f.seen is None:
        return False, ""
    if fisher_test(f.seen, f.clean) < LEVEL:
        return False, f", of these {100 * f.seen.accuracy:.1f} %: more apart than by chance"
    if f.clean.n < min(FEW, f.seen.n):
        return False, ": too few to tell"
    return True, ""


def _ends(share: Share) -> str:
    low, high = share.interval
    return f"{100 * low:.1f} to {100 * high:.1f}"
