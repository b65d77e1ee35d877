"""ARC: science questions of school exams, Easy and Challenge. Source: arXiv:1803.05457."""

from collections.abc import Mapping, Sequence
from typing import Any

from nanochat_jax.tasks import choice
from nanochat_jax.tasks.task import Task, shuffled


def task(rows: Sequence[Mapping[str, Any]], name: str = "ARC") -> Task:
    """The questions in nanochat's order."""
    return Task(name, shuffled(rows), conversation, "categorical", choice.score, choice.reward)


def conversation(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row `{"question", "choices": {"text", "label"}, "answerKey"}`; labels may be digits."""
    choices = row["choices"]
    return choice.conversation(row["question"], choices["label"], choices["text"], row["answerKey"])
