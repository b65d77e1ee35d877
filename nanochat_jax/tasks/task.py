"""What a task is: rows, the conversation that a row becomes, and how an answer to it is scored."""

import dataclasses
import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import numpy as np

from nanochat_jax.tasks import choice
from nanochat_jax.tokenizer.chat_format import Conversation

AnswerKind = Literal["categorical", "generative"]
ScoreAnswer = Callable[[Conversation, str], float]


@dataclasses.dataclass(frozen=True)
class Task:
    """Examples by index; with `score`, answers to them can be scored.

    Args:
        rows: anything with a length and an index.
        example: row -> conversation, or `{"text": ...}`; called whenever one is read, so that the
            rows of a large data set need not be held as conversations.
        kind: `categorical`: the answer is one of the conversation's `letters`; `generative`: free
            text; None: nothing to score, the rows are only to be learned from.
        score: (conversation, answer) -> 0.0 or 1.0.
        reward: the same for reinforcement learning: takes any text, never raises.
        question: of multiple choice: row -> its question before it is put in words.
    """

    name: str
    rows: Sequence[Any]
    example: Callable[[Any], Mapping[str, Any]]
    kind: AnswerKind | None = None
    score: ScoreAnswer | None = None
    reward: ScoreAnswer | None = None
    question: Callable[[Any], choice.Question] | None = None

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Mapping[str, Any]:
        return self.example(self.rows[index])

    def view(self, start: int = 0, stop: int | None = None, step: int = 1) -> "Task":
        """The same task of the rows `start, start + step, ...` before `stop` that there are."""
        return dataclasses.replace(self, rows=view(self.rows, start, stop, step))

    def changed(self, change: Callable[[choice.Question], choice.Question]) -> "Task":
        """The same task of multiple choice, of changed questions, put in words by the same code."""
        asked = self.question
        assert asked is not None
        return of_questions(self.name, self.rows, lambda row: change(asked(row)))


def of_questions(name: str, rows: Any, question: Callable[[Any], choice.Question]) -> Task:
    """A task of multiple choice."""
    example = lambda row: question(row).conversation()
    return Task(name, rows, example, "categorical", choice.score, choice.reward, question)


@dataclasses.dataclass(frozen=True)
class Reordered:
    """The rows that `order` counts off, in that order; none is copied."""

    rows: Any
    order: Sequence[int] | np.ndarray

    def __len__(self) -> int:
        return len(self.order)

    def __getitem__(self, index: int) -> Any:
        return self.rows[int(self.order[index])]


def view(rows: Any, start: int = 0, stop: int | None = None, step: int = 1) -> Reordered:
    """A slice of rows. Source: nanochat's `Task(start, stop, step)`, which does not clip `stop`."""
    return Reordered(rows, range(start, len(rows) if stop is None else min(stop, len(rows)), step))


def shuffled(rows: Any, seed: int = 42) -> Reordered:
    """The rows in the order of Hugging Face's `Dataset.shuffle(seed)`.

    The original shuffles every data set so, and "the first 5200 rows of MMLU" means its first 5200.
    """
    return Reordered(rows, np.random.default_rng(seed).permutation(len(rows)))


def source_row(rows: Any, index: int) -> int:
    """The number of a row among those that were read, before any shuffle or slice."""
    while isinstance(rows, Reordered):
        rows, index = rows.rows, int(rows.order[index])
    return index


class Mixture:
    """All rows of all tasks; name a task twice to see its rows twice.

    Args:
        seed: of the order, in which every task is met all the time and not one after another; it
            is the same on every machine, or ranks would not share the rows out without gaps.
            None: one task after another.

    Source: nanochat `tasks/common.py`, TaskMixture and TaskSequence.
    """

    def __init__(self, tasks: Sequence[Task], seed: int | None = 42):
        self.tasks = tuple(tasks)
        self.order = [(t, i) for t, task in enumerate(tasks) for i in range(len(task))]
        if seed is not None:
            random.Random(seed).shuffle(self.order)

    def __len__(self) -> int:
        return len(self.order)

    def __getitem__(self, index: int) -> Mapping[str, Any]:
        task, row = self.at(index)
        return task[row]

    def at(self, index: int) -> tuple[Task, int]:
        """The task that an index falls to, and the row there."""
        task, row = self.order[index]
        return self.tasks[task], row
