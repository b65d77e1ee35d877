"""The first question of each conversation, marked by the words of its own answer.

So any conversations with short, certain answers can be learnt from by trying: what is said must be
the answer word for word, and the tool asked what the answer asks it. Marked by what is said alone,
a model soon learns to make a tool's output up and to guess.
"""

import dataclasses
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from nanochat_jax.tasks.mixture import Conversation
from nanochat_jax.tasks.rows import RowTask

CALL = re.compile(r"<\|python_start\|>(.*?)<\|python_end\|>", re.DOTALL)
OUTPUT = re.compile(r"<\|output_start\|>.*?<\|output_end\|>", re.DOTALL)
LETTERS = re.compile(r"\w( \w)+")
KINDS = ("sums", "counts", "spelling")


@dataclasses.dataclass(frozen=True)
class Reply:
    """A reply taken apart: what the tool was asked, and what was said beside it."""

    calls: tuple[str, ...]
    said: str

    @classmethod
    def parse(cls, text: str) -> "Reply":
        return cls(tuple(CALL.findall(text)), OUTPUT.sub("", CALL.sub("", text)).strip())


def task(conversations: Iterable[Sequence[Mapping[str, Any]]], kind: str = "") -> RowTask:
    """The first exchanges of one kind: `sums` of the calculator, `counts` of letters, `spelling`
    letter by letter; "" for all."""
    firsts = (first_exchange(messages) for messages in conversations)
    rows = [row for row in firsts if not kind or kind_of(row[-1]["content"]) == kind]
    name = f"exchanges:{kind}" if kind else "exchanges"
    return RowTask(name, rows, _conversation, "generative", score, score)


def first_exchange(messages: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The messages up to the first answer."""
    roles = [message["role"] for message in messages]
    return list(messages[: roles.index("assistant") + 1])


def kind_of(answer: str | Sequence[Mapping[str, str]]) -> str:
    """One of KINDS, or "" for an answer of no kind."""
    if isinstance(answer, str):
        return "spelling" if LETTERS.fullmatch(answer) else ""
    calls = [part["text"] for part in answer if part["type"] == "python"]
    if len(calls) != 1:
        return ""
    return "counts" if ".count(" in calls[0] else "sums"


def score(conversation: Conversation, answer: str) -> float:
    """1.0 where the answer says what the conversation's own says, by the same calls of the tool
    (but for spaces in them)."""
    own, given = _own(conversation["messages"][-1]["content"]), Reply.parse(answer)
    same = lambda a, b: a.replace(" ", "") == b.replace(" ", "")
    alike = len(own.calls) == len(given.calls) and all(map(same, own.calls, given.calls))
    return float(alike and own.said == given.said)


def _own(answer: str | Sequence[Mapping[str, str]]) -> Reply:
    """A conversation's answer, taken apart as a reply."""
    if isinstance(answer, str):
        return Reply((), answer.strip())
    of = lambda kind: [part["text"] for part in answer if part["type"] == kind]
    return Reply(tuple(of("python")), "".join(of("text")).strip())


def _conversation(messages: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    return {"messages": messages}
