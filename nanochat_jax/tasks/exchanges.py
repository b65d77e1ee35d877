"""The first question of each conversation, scored by the words of its own answer.

So that any conversations with short, certain answers can serve reinforcement learning: the reply
must be the answer word for word, and call the tool as the answer does.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from nanochat_jax.tasks.task import Task
from nanochat_jax.tokenizer.chat_format import Conversation, Part, calls_and_text, parse, parts_of

# Letter by letter, as the embedded world spells: "It is spelled o x." What ends so is taken for
# spelling.
LETTERS = re.compile(r"(.* )?\w( \w)+\.?")
KINDS = ("sums", "counts", "spelling")


def task(conversations: Iterable[Sequence[Mapping[str, Any]]], kind: str = "") -> Task:
    """The first exchanges of one kind: sums of the calculator, counts of letters, ...; "": all."""
    rows = []
    for messages in conversations:
        answer = [message["role"] for message in messages].index("assistant")
        if not kind or kind_of(messages[answer]["content"]) == kind:
            rows.append(list(messages[: answer + 1]))
    name = f"exchanges:{kind}" if kind else "exchanges"
    return Task(name, rows, lambda messages: {"messages": messages}, "generative", score, score)


def kind_of(answer: str | Sequence[Mapping[str, str]]) -> str:
    """One of KINDS, or "" for an answer of no kind."""
    calls, text = calls_and_text(parts_of(answer))
    if len(calls) == 1:
        return "counts" if ".count(" in calls[0] else "sums"
    return "spelling" if not calls and LETTERS.fullmatch(text) else ""


def score(conversation: Conversation, answer: str) -> float:
    """1.0 for the words of the conversation's own answer and its calls, spaces in calls aside."""
    # Scored by the words alone the reward rose from .69 to .95 while validation fell: a call that
    # is none forces no output, and the model wrote the likeliest output itself (docs/log.md).
    own = parts_of(conversation["messages"][-1]["content"])
    return float(_calls_and_text(own) == _calls_and_text(parse(answer)))


def _calls_and_text(parts: Sequence[Part]) -> tuple[list[str], str]:
    calls, text = calls_and_text(parts)
    # 2+3 and 2 + 3 are the same call; spaces that a text shows are the answer's own.
    return [call.replace(" ", "") for call in calls], text
