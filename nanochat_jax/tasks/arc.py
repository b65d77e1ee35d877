"""ARC: science questions of school exams, Easy and Challenge. Source: arXiv:1803.05457."""

from collections.abc import Mapping, Sequence
from typing import Any

from nanochat_jax.tasks import choice
from nanochat_jax.tasks.task import Task, of_questions, shuffled


def task(rows: Sequence[Mapping[str, Any]], name: str = "ARC") -> Task:
    """The questions in nanochat's order."""
    return of_questions(name, shuffled(rows), question)


def question(row: Mapping[str, Any]) -> choice.Question:
    """A row `{"question", "choices": {"text", "label"}, "answerKey"}`; labels may be digits."""
    choices = row["choices"]
    return choice.Question(row["question"], choices["label"], choices["text"], row["answerKey"])
