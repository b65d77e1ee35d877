"""Conversations of one to three turns, and the questions that examine what was learned."""

import functools
import random
from collections.abc import Callable, Iterator
from typing import Any

from nanochat_jax.demo import questions as ask
from nanochat_jax.demo.facts import ATTRIBUTES, Person, held_out
from nanochat_jax.demo.questions import QUESTIONS, Content, Question

Maker = Callable[[random.Random, tuple[Person, ...], str], Question]

# Kinds of turns, each with its share (the study behind them: docs/log.md).
MAKERS: dict[str, tuple[int, Maker]] = {
    "fact": (26, ask.chat_fact), "arithmetic": (24, ask.arithmetic), "spelling": (14, ask.spelling),
    "identity": (9, ask.identity), "unknown": (8, ask.unknown), "story": (4, ask.story_request),
    "animal": (6, ask.animal_fact), "word": (2, ask.word_of_the_world),
    "person": (2, ask.whole_person), "count": (2, ask.letter_count), "talk": (2, ask.small_talk),
    "who": (1, ask.favorite),
}  # fmt: skip
# Kinds of probes, by their names in the scores, and what makes them.
PROBED = (
    ("identity", "identity"), ("fact in chat", "fact"), ("animal", "animal"),
    ("arithmetic", "arithmetic"), ("unknown", "unknown"), ("spelling", "spelling"),
    ("letter count", "count"),
)  # fmt: skip
PROBES_A_KIND = {"dev": 40, "final": 60}


def conversations(people: tuple[Person, ...], seed: int) -> Iterator[dict[str, Any]]:
    """Endless training conversations `{"messages": [...]}`."""
    rng = random.Random(seed)
    weights, makers = zip(*MAKERS.values(), strict=True)
    while True:
        turns = rng.choices((1, 2, 3), (5, 3, 2))[0]
        messages: list[dict[str, Any]] = []
        for make in rng.choices(makers, weights, k=turns):
            made = make(rng, people, "train")
            messages += _messages(_opened(rng, made.text), made.answer)
        yield {"messages": messages}


def probes(people: tuple[Person, ...], seed: int, which: str) -> Iterator[dict[str, Any]]:
    """The examination: `{"set", "kind", "question", "key", "answer", "tool"}`, no question twice.

    `which` is "dev" (to tune by) or "final" (to report): other draws, other phrasings.
    """
    rng = random.Random(seed)
    makers = {kind: functools.partial(MAKERS[name][1], rng, people, which) for kind, name in PROBED}
    # Facts that stand in documents and in no conversation: whether reading alone has taught them.
    hidden = [(p, k) for p in people for k in ATTRIBUTES if held_out(p, k)]
    makers["fact in documents"] = lambda: ask.person_fact(rng, *rng.choice(hidden), which)
    for kind, make in makers.items():
        seen: set[str] = set()
        for _ in range(2000):
            made = make()
            if made.text not in seen:
                seen.add(made.text)
                yield _probe(which, kind, made)
            if len(seen) == PROBES_A_KIND[which]:
                break


def _probe(which: str, kind: str, made: Question) -> dict[str, Any]:
    tool = made.answer[0]["text"] if isinstance(made.answer, list) else None
    return {
        "set": which, "kind": kind, "question": made.text, "key": made.key,
        "answer": made.answer_text, "tool": tool,
    }  # fmt: skip


def _opened(rng: random.Random, question: str) -> str:
    """The question, one time in four with something before it."""
    return rng.choice(QUESTIONS["openers"]) + question if rng.random() < 0.25 else question


def _messages(question: str, answer: Content) -> list[dict[str, Any]]:
    return [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
