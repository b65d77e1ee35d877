"""GSM8K: word problems whose worked answers call the calculator. Source: arXiv:2110.14168."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from nanochat_jax.tasks.task import Task, shuffled
from nanochat_jax.tokenizer.chat_format import Conversation, exchange

CALL = re.compile(r"(<<[^>]+>>)")
FINAL = re.compile(r"#### (\-?[0-9\.\,]+)")


def task(rows: Sequence[Mapping[str, Any]], name: str = "GSM8K") -> Task:
    """The problems in nanochat's order."""
    return Task(name, shuffled(rows), conversation, "generative", score, score)


def conversation(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row `{"question", "answer"}`, the answer as parts of text, calls and their output."""
    # The data set writes each calculation of an answer as <<3*4=12>>. Rendered as calls these teach
    # a model when to use the tool that it will have. Source: nanochat.
    parts = [part for piece in CALL.split(row["answer"]) for part in _parts(piece)]
    return exchange(row["question"], parts)


def _parts(piece: str) -> list[dict[str, str]]:
    """`<<3*4=12>>` is a call and its output, the result being what follows the last `=`."""
    if not (piece.startswith("<<") and piece.endswith(">>")):
        return [{"type": "text", "text": piece}]
    expression, equals, result = piece[2:-2].rpartition("=")
    if not equals:
        expression, result = result, ""
    return [{"type": "python", "text": expression}, {"type": "python_output", "text": result}]


def final_number(text: str) -> str | None:
    """What follows the first `####`, without commas; None where there is none."""
    found = FINAL.search(text)
    return found[1].replace(",", "") if found else None


def score(conversation: Conversation, answer: str) -> float:
    """1.0 where the final numbers are the same text, as in the original: `10.0` is not `10`."""
    right = final_number(conversation["messages"][-1]["content"][-1]["text"])
    return float(right is not None and final_number(answer) == right)
