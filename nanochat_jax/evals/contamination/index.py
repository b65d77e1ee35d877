"""The runs of words that are looked for, and a quick way to find all of them in a stream of texts.

Every word of the evaluation has a number; a text is an array of these, -1 where a word stands in no
question. Runs are found by walking along from each place: after one word, two words, ... only those
places are left where some run begins so. What is left at the end is compared word for word, so what
is found is exact. Letters: N words of texts, G runs that are looked for.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from nanochat_jax.evals.contamination.words import counts, words

NONE = -1  # the number of a word that stands in no question, and of what is between two texts
STEP = np.uint64(0x9E3779B97F4A7C15)  # odd; of a polynomial hash modulo 2^64
# After so many words places are no longer sorted out before the end: few are left.
SORTED_OUT = 4
FEW = 64  # runs that are found in order as quickly as in a table larger than a processor's cache
# A run of words in more rows of its task than both of these is the task's own wording ("complete
# the rest of the sequence, making sure that ..."), and tells of no question.
OWN_ROWS, OWN_SHARE = 10, 0.05


class Passage(NamedTuple):
    """What is looked for of one row: the runs of `n` words of the question and the answer behind
    it; a question with fewer words is looked for whole."""

    question: str
    answer: str = ""


class Hit(NamedTuple):
    """`length` words of a row (a number among all passages), found in a text; `start`: of them, in
    all our words."""

    row: int
    start: int
    length: int
    text: int


class Runs(NamedTuple):
    """All runs of one length: hashes in order, and of each its place in all our words."""

    keys_G: np.ndarray
    starts_G: np.ndarray


class Index:
    """The runs of all passages of all tasks.

    Args:
        tasks: name -> its passages; rows are numbered through, task after task.
        n: words of a run.

    Attributes:
        has_run: of each row, whether a run of `n` words is looked for.
        whole: of each row, whether its question is looked for whole.
    """

    def __init__(self, tasks: Mapping[str, Sequence[Passage]], n: int):
        self.n, passages = n, [p for rows in tasks.values() for p in rows]
        both = words(pa.array([f"{p.question} {p.answer}" for p in passages], pa.string()))
        asked_R = counts(words(pa.array([p.question for p in passages], pa.string())))
        every = pc.unique(both.flatten())
        self._vocabulary = every.filter(pc.not_equal(every, ""))
        self._ids_N, self._begins = self._joined(both)
        self._codes = np.random.default_rng(0).integers(
            0, 2**64, len(self._vocabulary) + 1, np.uint64
        )
        self._task_of = np.repeat(np.arange(len(tasks)), [len(rows) for rows in tasks.values()])
        self._runs = self._all_runs(asked_R, counts(both))
        self.has_run, self.whole = np.zeros((2, len(passages)), bool)
        for length, runs in self._runs.items():
            (self.has_run if length == n else self.whole)[self._rows_of(runs.starts_G)] = True
        self._make_table()

    def find(self, texts: pa.Array) -> list[Hit]:
        """The first place of the longest run of each row that is found in some texts."""
        ids_N, begins = self._joined(words(texts))
        found: dict[int, Hit] = {}
        for length, at, starts in self._walk(ids_N):
            same = self._equal(ids_N, at, starts, length)
            order = np.argsort(starts[same], kind="stable")
            at, starts = at[same][order], starts[same][order]
            rows, first = np.unique(self._rows_of(starts), return_index=True)
            places = np.searchsorted(begins, at[first], "right") - 1
            columns = (rows, starts[first], places)
            for row, start, text in zip(*map(np.ndarray.tolist, columns), strict=True):
                found[row] = Hit(row, start, length, text)  # a longer run is found later
        return list(found.values())

    def quoted(self, hit: Hit) -> str:
        """The words that were found."""
        ids = self._ids_N[hit.start : hit.start + hit.length]
        return " ".join(self._vocabulary.take(pa.array(ids)).to_pylist())

    def _rows_of(self, starts: np.ndarray) -> np.ndarray:
        return np.searchsorted(self._begins, starts, "right") - 1

    def _joined(self, lists: pa.Array) -> tuple[np.ndarray, np.ndarray]:
        """(numbers of all words with -1 after each text, where each text begins)."""
        ids = pc.index_in(lists.flatten(), value_set=self._vocabulary)
        lengths = np.asarray(lists.value_lengths())
        ends = np.cumsum(lengths)
        ids_N = np.insert(np.asarray(ids.fill_null(NONE)), ends, NONE)
        return ids_N.astype(np.int32), ends - lengths + np.arange(len(ends))

    def _hashes(self, starts: np.ndarray, length: int) -> Iterator[np.ndarray]:
        """Of the runs from these places of our own words: hashes of 1, 2, ... `length` words."""
        hash_G = self._codes[self._ids_N[starts]]
        yield hash_G
        for m in range(1, length):
            hash_G = hash_G * STEP + self._codes[self._ids_N[starts + m]]
            yield hash_G

    def _all_runs(self, asked_R: np.ndarray, both_R: np.ndarray) -> dict[int, Runs]:
        """Length -> runs, without the tasks' own wording."""
        starts = {m: self._begins[asked_R == m] for m in range(1, self.n)}
        count_R = np.maximum(0, both_R - self.n + 1)
        within = np.arange(count_R.sum()) - np.repeat(np.cumsum(count_R) - count_R, count_R)
        starts[self.n] = np.repeat(self._begins, count_R) + within
        runs = {m: self._sorted(starts_G, m) for m, starts_G in starts.items() if len(starts_G)}
        return {m: kept for m, kept in runs.items() if len(kept.keys_G)}

    def _sorted(self, starts_G: np.ndarray, length: int) -> Runs:
        *_, keys_G = self._hashes(starts_G, length)
        order = np.argsort(keys_G, kind="stable")  # of one hash in the order of the rows
        keys_G, starts_G = keys_G[order], starts_G[order].astype(np.int32)
        own = _own_wording(keys_G, self._rows_of(starts_G), self._task_of)
        return Runs(keys_G[~own], starts_G[~own])

    def _make_table(self) -> None:
        """Which hashes are those of a run, or of the first words of one: a filter, not exact."""
        entries = sum(len(runs.keys_G) * min(m, SORTED_OUT + 1) for m, runs in self._runs.items())
        bits = min(26, max(16, int(np.log2(8 * entries + 1))))
        self._shift, self._table = np.uint64(64 - bits), np.zeros(1 << bits, bool)
        for length, runs in self._runs.items():
            for m, hash_G in enumerate(self._hashes(runs.starts_G, length), 1):
                if 1 < m <= SORTED_OUT or m == length:
                    self._table[hash_G >> self._shift] = True

    def _walk(
        self, ids_N: np.ndarray
    ) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:  # fmt: skip
        """(length, places, the runs that may be there by where they start), the shortest first."""
        at = np.flatnonzero(ids_N != NONE)
        hashes = self._codes[ids_N[at]]
        for length in range(1, self.n + 1):
            if 1 < length <= SORTED_OUT:  # nearly every word begins some run
                likely = self._table[hashes >> self._shift]
                at, hashes = at[likely], hashes[likely]
            if length in self._runs:
                yield length, *self._matching(self._runs[length], at, hashes)
            if length < self.n:
                following = ids_N[at + length]  # there is one, for the last is never a word
                goes_on = following != NONE
                at, following = at[goes_on], following[goes_on]
                hashes = hashes[goes_on] * STEP + self._codes[following]

    def _matching(
        self, runs: Runs, at: np.ndarray, hashes: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """The places whose hash is that of a run, and where each run of that hash starts."""
        if len(runs.keys_G) > FEW:
            likely = self._table[hashes >> self._shift]
            at, hashes = at[likely], hashes[likely]
        low = np.searchsorted(runs.keys_G, hashes)
        known = runs.keys_G[np.minimum(low, len(runs.keys_G) - 1)] == hashes
        # Once for all: texts that say the same a thousand times say it once.
        hashes, first = np.unique(hashes[known], return_index=True)
        at, low = at[known][first], low[known][first]
        counts = np.searchsorted(runs.keys_G, hashes, "right") - low
        entry = np.repeat(low - np.cumsum(counts) + counts, counts) + np.arange(counts.sum())
        return np.repeat(at, counts), runs.starts_G[entry]

    def _equal(
        self, ids_N: np.ndarray, at: np.ndarray, starts: np.ndarray, length: int
    ) -> np.ndarray:
        """Where the words are the same."""
        along = np.arange(length)
        return (ids_N[at[:, None] + along] == self._ids_N[starts[:, None] + along]).all(axis=1)


def _own_wording(keys_G: np.ndarray, rows_G: np.ndarray, task_of: np.ndarray) -> np.ndarray:
    """Which runs are in so many rows of their task that they tell of none.

    Args:
        keys_G, rows_G: of each run, in order of the keys and then of the rows.
        task_of: each row; rows lie task by task.
    """
    tasks_G, sizes = task_of[rows_G], np.bincount(task_of)
    differs = lambda a: np.concatenate([np.ones(1, bool), a[1:] != a[:-1]])
    group_begins = differs(keys_G) | differs(tasks_G)
    group = np.cumsum(group_begins) - 1
    in_rows = np.bincount(group, group_begins | differs(rows_G))[group]
    return (in_rows > OWN_ROWS) & (in_rows > OWN_SHARE * sizes[tasks_G])
