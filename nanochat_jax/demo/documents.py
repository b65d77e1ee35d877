"""Documents of the world: lives, lists, letters, weather, sums, spelling, and little stories."""

import random
from collections.abc import Callable, Iterator

from nanochat_jax.data.phrases import Phrases
from nanochat_jax.demo import words
from nanochat_jax.demo.facts import ATTRIBUTES, WORLD, Person
from nanochat_jax.demo.questions import QUESTIONS, spelled
from nanochat_jax.demo.sentences import (
    ANIMAL_ASPECTS,
    SENTENCES,
    Scene,
    animal_statement,
    fields,
    statement,
)  # fmt: skip
from nanochat_jax.demo.stories import story

DOCUMENTS = Phrases("nanochat_jax.demo", "content/documents.toml", {
    "links": "", "reverse": fields("person"), "spelling": "word letters question answer name",
    "register": "title lines", "register_titles": "", "counting": "numbers", "sums": "x y sum",
    "letter": fields("one two", words="thing day place news question end"),
    "weather": fields("person", "animal", "day weather effect"),
}, known=WORLD)  # fmt: skip


def documents(people: tuple[Person, ...], seed: int) -> Iterator[str]:
    """Endless documents, no two the same."""
    rng = random.Random(seed)
    # Each kind with its share.
    shares: dict[Callable[[random.Random, tuple[Person, ...]], str], int] = {
        story: 26, bio: 28, pair: 9, reverse: 9, spelling: 22, register: 3, letter: 4, weather: 3,
        animals: 4, sums: 2,
    }  # fmt: skip
    seen: set[str] = set()
    while True:
        [make] = rng.choices(list(shares), list(shares.values()))
        if (text := make(rng, people)) not in seen:
            seen.add(text)
            yield text


def bio(rng: random.Random, people: tuple[Person, ...]) -> str:
    """Three to seven facts about one person, the first with the name, some with a pronoun."""
    person = rng.choice(people)
    first, *others = rng.sample(ATTRIBUTES, rng.randint(3, 7))
    lines = [_state(rng, person, first)]
    lines += [_state(rng, person, other, pronoun=rng.random() < 0.4) for other in others]
    return " ".join(lines)


def pair(rng: random.Random, people: tuple[Person, ...]) -> str:
    """The same facts about two people."""
    two = rng.sample(people, 2)
    chosen = rng.sample(ATTRIBUTES, rng.randint(2, 3))
    link = rng.choice(DOCUMENTS["links"])
    return f" {link}".join(" ".join(_state(rng, p, k) for k in chosen) for p in two)


def reverse(rng: random.Random, people: tuple[Person, ...]) -> str:
    """Who is what, the fact first and the name after it."""
    # Trained on "A is B" alone, a model does not answer what B is (the reversal curse,
    # arXiv:2309.12288).
    return " ".join(
        rng.choice(DOCUMENTS["reverse"]).format_map(Scene(rng, person=person))
        for person in rng.sample(people, rng.randint(3, 5))
    )


def spelling(rng: random.Random, people: tuple[Person, ...]) -> str:
    """Words of the world, common and invented ones, letter by letter."""
    lines = []
    for _ in range(rng.randint(3, 6)):
        word = words.to_spell(rng)
        asked = spelled(rng.choice(QUESTIONS["spell"]["train"]).format(word=word), word)
        lines.append(
            rng.choice(DOCUMENTS["spelling"]).format(
                word=word,
                letters=" ".join(word),
                question=asked.text,
                answer=asked.answer,
                name=rng.choice(people).name,
            )
        )
    return " ".join(lines)


def register(rng: random.Random, people: tuple[Person, ...]) -> str:
    """A list of names with one thing about each."""
    kind, title = rng.choice(list(DOCUMENTS["register_titles"].items()))
    chosen = rng.sample(people, rng.randint(4, 8))
    lines = "; ".join(f"{person.name}, {person.facts[kind]}" for person in chosen)
    return DOCUMENTS["register"].format(title=title, lines=lines)


def letter(rng: random.Random, people: tuple[Person, ...]) -> str:
    """A note from one person to another."""
    one, two = rng.sample(people, 2)
    scene = Scene(rng, DOCUMENTS["letter"], one=one, two=two)
    scene.draw("thing", "day", "place", "news", "end", "question")
    return DOCUMENTS["letter"]["frame"].format_map(scene)


def weather(rng: random.Random, people: tuple[Person, ...]) -> str:
    """A week's weather and what it did."""
    texts, lines = DOCUMENTS["weather"], []
    lists = {"animal": list(WORLD["animals"]), "effect": texts["effects"]}
    for day in rng.sample(WORLD["days"], 3):
        kind, person = rng.choice(WORLD["weathers"]), rng.choice(people)
        scene = Scene(rng, lists, person=person)
        scene |= {"day": day, "weather": kind}
        scene.draw("animal", "effect")
        lines.append(texts["day"].format_map(scene))
    return texts["title"] + " ".join(lines)


def animals(rng: random.Random, people: tuple[Person, ...]) -> str:
    """What one or two animals are like."""
    return " ".join(
        animal_statement(animal, aspect, rng.randrange(3))
        for animal in rng.sample(list(WORLD["animals"]), rng.randint(1, 2))
        for aspect in rng.sample(ANIMAL_ASPECTS, rng.randint(2, 4))
    )


def sums(rng: random.Random, people: tuple[Person, ...]) -> str:
    """Counting and small sums."""
    if rng.random() < 0.4:
        start, step = rng.randint(1, 80), rng.choice((1, 2, 5))
        numbers = " ".join(str(start + step * i) for i in range(rng.randint(6, 12)))
        return DOCUMENTS["counting"].format(numbers=numbers)
    lines = []
    for _ in range(rng.randint(3, 6)):
        x, y = rng.randint(2, 60), rng.randint(2, 39)
        lines.append(rng.choice(DOCUMENTS["sums"]).format(x=x, y=y, sum=x + y))
    return " ".join(lines)


def _state(rng: random.Random, person: Person, attribute: str, pronoun: bool = False) -> str:
    """A statement in any form, the canonical one twice as often; pronouns only where they fit."""
    # Other forms too: a fact is to be more than one string of words.
    forms = SENTENCES["statements"][attribute]
    form = rng.choice((0, *range(len(forms))))
    fits = pronoun and forms[form].startswith("{name}")
    return statement(person, attribute, form, subject=person.pronoun if fits else person.name)
