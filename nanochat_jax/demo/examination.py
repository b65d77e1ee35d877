"""The questions that examine what was learned, and the lines of somebody's first minute."""

import functools
import random
import re
from collections.abc import Callable, Iterator
from typing import Any

from nanochat_jax.data.phrases import Phrases
from nanochat_jax.demo import questions as ask
from nanochat_jax.demo.facts import ATTRIBUTES, WORLD, Person, held_out
from nanochat_jax.demo.questions import QUESTIONS, Maker, Question
from nanochat_jax.demo.sentences import animal_statement, statement

FIRST_MINUTE = Phrases("nanochat_jax.demo", "content/first_minute.toml", dict.fromkeys(
    "says sums words counts facts stories".split(), ""
), known=WORLD)  # fmt: skip
# Kinds of probes, by their names in the scores.
PROBED: dict[str, Maker] = {
    "identity": ask.identity, "fact in chat": ask.chat_fact, "animal": ask.animal_fact,
    "arithmetic": ask.arithmetic, "unknown": ask.unknown, "spelling": ask.spelling,
    "letter count": ask.letter_count,
}  # fmt: skip
PROBES_A_KIND = {"dev": 40, "final": 60}


def probes(people: tuple[Person, ...], seed: int, which: str) -> Iterator[dict[str, Any]]:
    """The examination: `{"set", "kind", "question", "answers", "tool", "story"}`, none twice.

    One of the answers is to follow the call of the tool (None: no call), or a story about `story`
    to be told ("": about anything). `which` is "dev" (to tune by) or "final" (to report): other
    draws, other phrasings. The lines of the first minute are in "final" alone.
    """
    rng = random.Random(seed)
    makers = {kind: functools.partial(make, rng, people, which) for kind, make in PROBED.items()}
    # Facts that stand in documents and in no conversation: whether reading alone has taught them.
    hidden = [(p, k) for p in people for k in ATTRIBUTES if held_out(p, k)]
    makers["fact in documents"] = lambda: ask.person_fact(rng, *rng.choice(hidden), which)
    for kind, make in makers.items():
        for made in _different(make, PROBES_A_KIND[which]):
            yield {"set": which, "kind": kind, **_probe(made)}
    if which == "final":
        for probe in first_minute(people):
            yield {"set": which, "kind": "first minute", **probe}


def first_minute(people: tuple[Person, ...]) -> Iterator[dict[str, Any]]:
    """What somebody types first, each line as a probe; conversations may hold the same lines."""
    facts = {f"{p.name} {k}": statement(p, k) for p in people for k in ATTRIBUTES}
    facts |= {
        f"{a} {k}": animal_statement(a, k) for a, about in WORLD["animals"].items() for k in about
    }
    answers = _named_answers()
    for names, line in _lines("says"):
        yield _probe(Question(line, answers[names.split()[0]])) | {
            "answers": [answers[n] for n in names.split()]
        }
    for fact, line in _lines("facts"):
        yield _probe(Question(line, facts[fact]))
    for call, line in _lines("sums"):
        x, sign, y = re.split(r"([-+*])", call)
        yield _probe(ask.sum_of(line, int(x), sign, int(y)))
    for word, line in _lines("words"):
        yield _probe(ask.spelled(line, word))
    for counted, line in _lines("counts"):
        yield _probe(ask.counted(line, *counted.split()))
    for topic, line in _lines("stories"):
        yield _probe(Question(line, "")) | {"answers": [], "story": "" if topic == "any" else topic}


def _lines(table: str) -> Iterator[tuple[str, str]]:
    """(what fits, line) of a table of first_minute.toml."""
    return ((fits, line) for fits, lines in FIRST_MINUTE[table].items() for line in lines)


def _named_answers() -> dict[str, str]:
    """Answers that are the same whatever is asked, by their names in questions.toml."""
    named = QUESTIONS["identity"] | QUESTIONS["small_talk"]
    return {name: about["answer"] for name, about in named.items()} | {
        "unknown": QUESTIONS["unknown_answer"]
    }


def _different(make: Callable[[], Question], count: int) -> Iterator[Question]:
    """So many questions, none twice; fewer where 2,000 draws do not hold as many."""
    seen: set[str] = set()
    for _ in range(2000):
        if (made := make()).text not in seen:
            seen.add(made.text)
            yield made
        if len(seen) == count:
            return


def _probe(made: Question) -> dict[str, Any]:
    called = isinstance(made.answer, list)
    answer = made.answer[-1]["text"] if called else made.answer
    tool = made.answer[0]["text"] if called else None
    return {"question": made.text, "answers": [answer], "tool": tool, "story": None}
