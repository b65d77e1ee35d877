"""Conversations of one to three turns, and the questions that examine what was learned."""

import functools
import random
from collections.abc import Callable, Iterator
from typing import Any

from nanochat_jax.demo import questions as ask
from nanochat_jax.demo.facts import ATTRIBUTES, Person, held_out
from nanochat_jax.demo.questions import QUESTIONS, Question

Maker = Callable[[random.Random, tuple[Person, ...], str], Question]

# Kinds of turns, each with its share.
MAKERS: dict[Maker, int] = {
    ask.chat_fact: 26, ask.arithmetic: 24, ask.spelling: 14, ask.identity: 9, ask.unknown: 8,
    ask.story_request: 4, ask.animal_fact: 6, ask.word_of_the_world: 2, ask.whole_person: 2,
    ask.letter_count: 2, ask.small_talk: 2, ask.favorite: 1,
}  # fmt: skip
# Kinds of probes, by their names in the scores.
PROBED: dict[str, Maker] = {
    "identity": ask.identity, "fact in chat": ask.chat_fact, "animal": ask.animal_fact,
    "arithmetic": ask.arithmetic, "unknown": ask.unknown, "spelling": ask.spelling,
    "letter count": ask.letter_count,
}  # fmt: skip
PROBES_A_KIND = {"dev": 40, "final": 60}


def conversations(people: tuple[Person, ...], seed: int) -> Iterator[dict[str, Any]]:
    """Endless training conversations `{"messages": [...]}`."""
    rng = random.Random(seed)
    while True:
        [turns] = rng.choices((1, 2, 3), (5, 3, 2))
        messages: list[dict[str, Any]] = []
        for make in rng.choices(list(MAKERS), list(MAKERS.values()), k=turns):
            made = make(rng, people, "train")
            # One time in four there is something before the question.
            opener = rng.choice(QUESTIONS["openers"]) if rng.random() < 0.25 else ""
            messages.append({"role": "user", "content": opener + made.text})
            messages.append({"role": "assistant", "content": made.answer})
        yield {"messages": messages}


def probes(people: tuple[Person, ...], seed: int, which: str) -> Iterator[dict[str, Any]]:
    """The examination: `{"set", "kind", "question", "key", "answer", "tool"}`, no question twice.

    `which` is "dev" (to tune by) or "final" (to report): other draws, other phrasings.
    """
    rng = random.Random(seed)
    makers = {kind: functools.partial(make, rng, people, which) for kind, make in PROBED.items()}
    # Facts that stand in documents and in no conversation: whether reading alone has taught them.
    hidden = [(p, k) for p in people for k in ATTRIBUTES if held_out(p, k)]
    makers["fact in documents"] = lambda: ask.person_fact(rng, *rng.choice(hidden), which)
    for kind, make in makers.items():
        seen: set[str] = set()
        for _ in range(2000):
            if (made := make()).text not in seen:
                seen.add(made.text)
                called = isinstance(made.answer, list)
                yield {
                    "set": which, "kind": kind, "question": made.text, "key": made.key,
                    "answer": made.answer[-1]["text"] if called else made.answer,
                    "tool": made.answer[0]["text"] if called else None,
                }  # fmt: skip
            if len(seen) == PROBES_A_KIND[which]:
                break
