"""Conversations of one to three turns."""

import random
from collections.abc import Iterator
from typing import Any

from nanochat_jax.demo import questions as ask
from nanochat_jax.demo.facts import Person
from nanochat_jax.demo.questions import QUESTIONS, Maker

# Kinds of turns, each with its share.
MAKERS: dict[Maker, int] = {
    ask.chat_fact: 21, ask.arithmetic: 19, ask.spelling: 18, ask.identity: 8, ask.unknown: 9,
    ask.story_request: 4, ask.animal_fact: 9, ask.word_of_the_world: 2, ask.whole_person: 2,
    ask.letter_count: 11, ask.small_talk: 5, ask.favorite: 1,
}  # fmt: skip


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
            messages.append({"role": "user", "content": typed(rng, opener + made.text)})
            messages.append({"role": "assistant", "content": made.answer})
        yield {"messages": messages}


def typed(rng: random.Random, text: str) -> str:
    """As people type: now and then all in lower case, now and then without its last full stop."""
    if rng.random() < 0.15:
        text = text.lower()
    return text.rstrip(".?!") or text if rng.random() < 0.15 else text
