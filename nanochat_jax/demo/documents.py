"""Documents of the world: lives, lists, letters, weather, sums, spelling, and little stories."""

import random
from collections.abc import Callable, Iterator

from nanochat_jax.demo import sentences as say
from nanochat_jax.demo import words
from nanochat_jax.demo.facts import (
    ANIMALS,
    ATTRIBUTES,
    DAYS,
    OBJECTS,
    PLACES,
    VALLEY,
    WEATHERS,
    Person,
)
from nanochat_jax.demo.stories import story

# Kinds and their share of the documents (the study behind them: docs/log.md).
SHARES = {
    "story": 26, "bio": 28, "pair": 9, "reverse": 9, "spelling": 12,
    "register": 3, "letter": 4, "weather": 3, "animals": 4, "sums": 2,
}  # fmt: skip


def documents(people: tuple[Person, ...], seed: int) -> Iterator[str]:
    """Endless documents, no two the same."""
    rng = random.Random(seed)
    makers: dict[str, Callable[[random.Random, tuple[Person, ...]], str]] = {
        "story": story, "bio": bio, "pair": pair, "reverse": reverse,
        "spelling": spelling, "register": register, "letter": letter, "weather": weather,
        "animals": animals, "sums": sums,
    }  # fmt: skip
    kinds, weights = list(SHARES), list(SHARES.values())
    seen: set[str] = set()
    while True:
        text = makers[rng.choices(kinds, weights)[0]](rng, people)
        if text not in seen:
            seen.add(text)
            yield text


def bio(rng: random.Random, people: tuple[Person, ...]) -> str:
    """Three to seven facts about one person, the first with the name, some with a pronoun."""
    person = rng.choice(people)
    return _facts(rng, person, rng.randint(3, 7))


def pair(rng: random.Random, people: tuple[Person, ...]) -> str:
    """The same facts about two people."""
    one, two = rng.sample(people, 2)
    chosen = rng.sample(ATTRIBUTES, rng.randint(2, 3))
    link = rng.choice(("Now", "And", "As for the other:", "It is different with the neighbor:"))
    first = " ".join(_state(rng, one, k) for k in chosen)
    return f"{first} {link} {' '.join(_state(rng, two, k) for k in chosen)}".replace("And ", "")


def reverse(rng: random.Random, people: tuple[Person, ...]) -> str:
    """Who is what, the fact first and the name after it."""
    lines = []
    for person in rng.sample(people, rng.randint(3, 5)):
        forms = (
            f"The {person.job} is {person.name}.", f"{person.pet_name} belongs to {person.name}.",
            f"By the {person.home} lives {person.name}.", f"The {person.job} of {VALLEY} is {person.name}.",
            f"The one who likes {person.color} and eats {person.food} is {person.name}.",
            f"{person.pet_name} the {person.pet} is the pet of {person.name}.",
        )  # fmt: skip
        lines.append(rng.choice(forms))
    return " ".join(lines)


def spelling(rng: random.Random, people: tuple[Person, ...]) -> str:
    """World words and invented words, letter by letter."""
    known = words.world_words()
    chosen = [
        rng.choice(known) if rng.random() < 0.75 else words.invented(rng)
        for _ in range(rng.randint(3, 6))
    ]
    form = rng.choice(
        ("The word {w} is spelled {s}.", "{w}: {s}", "Spell {w}: {s}.", "{w} is {s}.", "To spell {w}, write {s}.")
    )  # fmt: skip
    return " ".join(form.format(w=w, s=words.spelled(w)) for w in chosen)


def register(rng: random.Random, people: tuple[Person, ...]) -> str:
    """A list of names with one thing about each."""
    kind = rng.choice(("job", "home", "pet", "color", "hobby", "food", "pet_name"))
    chosen = rng.sample(people, rng.randint(4, 8))
    title = {
        "job": "work", "home": "houses", "pet": "animals", "color": "colors",
        "hobby": "hobbies", "food": "dishes", "pet_name": "names of pets",
    }[kind]  # fmt: skip
    lines = "; ".join(f"{p.name}, {getattr(p, kind)}" for p in chosen)
    return f"List of {title} in {VALLEY}: {lines}."


def letter(rng: random.Random, people: tuple[Person, ...]) -> str:
    """A note from one person to another."""
    one, two = rng.sample(people, 2)
    thing, day = rng.choice(OBJECTS), rng.choice(DAYS)
    middle = rng.choice((
        f"Thank you for the {thing}. It is just what I needed for my work.",
        f"Have you seen my {thing}? I think I left it by the {rng.choice(PLACES)}.",
        f"Please come on {day}. There will be {one.food}, and I will show you my {thing}.",
        f"My {one.pet} {one.pet_name} is well again, because you helped us on {day}.",
        f"The {thing} is mended. You can fetch it on {day}, by the {one.home}.",
    ))  # fmt: skip
    end = rng.choice(("Your friend", "Yours", "With love", "Until soon"))
    return f"Dear {two.name}, {middle} {_facts_of(rng, two)} {end}, {one.name} the {one.job}."


def weather(rng: random.Random, people: tuple[Person, ...]) -> str:
    """A week's weather and what it did."""
    chosen, effects = rng.sample(DAYS, 3), []
    for day in chosen:
        kind, person = rng.choice(WEATHERS), rng.choice(people)
        effect = rng.choice((
            f"so {person.name} stayed at home by the {person.home}",
            f"and {person.name} could not go out", f"so the {person.job} worked inside",
            f"and the {rng.choice(list(ANIMALS))} hid", f"but {person.name} enjoyed {person.hobby} all the same",
        ))  # fmt: skip
        effects.append(f"On {day} there was {kind}, {effect}.")
    return f"Weather in {VALLEY}. " + " ".join(effects)


def animals(rng: random.Random, people: tuple[Person, ...]) -> str:
    """What one or two animals are like."""
    lines = []
    for animal in rng.sample(list(ANIMALS), rng.randint(1, 2)):
        aspects = rng.sample(say.ANIMAL_ASPECTS, rng.randint(2, 4))
        for aspect in aspects:
            value = ANIMALS[animal][say.ANIMAL_ASPECTS.index(aspect)]
            lines.append(say.animal_statement(animal, aspect, value, rng.randrange(3)))
    return " ".join(lines)


def sums(rng: random.Random, people: tuple[Person, ...]) -> str:
    """Counting and small sums."""
    if rng.random() < 0.4:
        start, step = rng.randint(1, 80), rng.choice((1, 2, 5))
        return "Count: " + " ".join(str(start + step * i) for i in range(rng.randint(6, 12))) + "."
    lines = []
    for _ in range(rng.randint(3, 6)):
        x, y = rng.randint(2, 60), rng.randint(2, 39)
        lines.append(rng.choice((f"{x} plus {y} is {x + y}.", f"{x + y} minus {y} is {x}.")))
    return " ".join(lines)


def _facts(rng: random.Random, person: Person, count: int) -> str:
    chosen = rng.sample(ATTRIBUTES, count)
    lines = [_state(rng, person, chosen[0])]
    for attribute in chosen[1:]:
        lines.append(_state(rng, person, attribute, pronoun=rng.random() < 0.4))
    return " ".join(lines)


def _facts_of(rng: random.Random, person: Person) -> str:
    """One thing said to a person about their own pet or food."""
    return rng.choice((
        f"How is {person.pet_name} the {person.pet}?", f"I will bring {person.food} for you.",
        f"Is the door by the {person.home} {person.color} again?", f"Do you still like {person.hobby}?",
    ))  # fmt: skip


def _state(rng: random.Random, person: Person, attribute: str, pronoun: bool = False) -> str:
    """A statement in any form, the canonical one twice as often; pronouns only where they fit."""
    form = rng.choice((0, *range(len(say.STATEMENTS[attribute]))))
    if pronoun and say.STATEMENTS[attribute][form].startswith("{n}"):
        return say.statement(person, attribute, form, subject=person.pronoun)
    return say.statement(person, attribute, form)
