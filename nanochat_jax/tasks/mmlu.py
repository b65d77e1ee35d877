"""MMLU: four-choice questions on 57 subjects. Source: arXiv:2009.03300."""

from collections.abc import Mapping, Sequence
from typing import Any

from nanochat_jax.tasks import choice
from nanochat_jax.tasks.task import Task, of_questions, shuffled

LETTERS = ("A", "B", "C", "D")


def task(rows: Sequence[Mapping[str, Any]], name: str = "MMLU") -> Task:
    """The questions in nanochat's order."""
    return of_questions(name, shuffled(rows), question)


def question(row: Mapping[str, Any]) -> choice.Question:
    """A row `{"question", "subject", "choices", "answer": index}`.

    The hub's old form of `auxiliary_train` wraps each row in `{"train": row}`.
    """
    row = row.get("train", row)
    if len(row["choices"]) != len(LETTERS):
        raise ValueError(f"expected 4 choices, got {row['choices']!r:.80}")
    answer = LETTERS[row["answer"]]
    about = {"subject": row["subject"]}
    return choice.Question(row["question"], LETTERS, row["choices"], answer, about)
