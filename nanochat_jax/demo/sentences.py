"""How the world is put into words: statements, questions, and the words that templates may name.

Each attribute has one canonical statement (its first), which is also the answer to every question
about it: a small model learns one sentence for a fact, and holds to it when it is sampled.
"""

import random
import re
from collections.abc import Mapping, Sequence

from nanochat_jax.data.phrases import Phrases
from nanochat_jax.demo.facts import ATTRIBUTES, WORLD, Person, a

ANIMAL_ASPECTS = ("sound", "food", "home", "legs")
SENTENCES = Phrases("nanochat_jax.demo", "content/sentences.toml", {
    "statements": "name value a_value possessive", "direct": "name", "clauses": "name",
    "held_direct": "name", "wraps": "clause", "reverse": "value a_value",
    "animals": "animal value a",
})  # fmt: skip
# Lists of the world, by the name of one of their words.
WORDS = {"place": "places", "thing": "objects", "day": "days", "weather": "weathers"}


def statement(person: Person, attribute: str, form: int = 0, subject: str | None = None) -> str:
    """A sentence that states a fact; form 0 is the canonical one."""
    value = person.facts[attribute]
    return SENTENCES["statements"][attribute][form].format(
        name=subject or person.name, value=value, a_value=a(value), possessive=person.possessive
    )


def animal_statement(animal: str, aspect: str, form: int = 0) -> str:
    """A sentence about an animal; form 0 is the canonical one."""
    value, forms = WORLD["animals"][animal][aspect], SENTENCES["animals"]["statements"][aspect]
    # The texts say "A {animal}"; "An owl" is put right here, for all of them.
    return re.sub(r"\b([Aa]) (?=[aeiou])", r"\1n ", forms[form].format(animal=animal, value=value))


class Scene(dict[str, str]):
    """For `str.format_map`: words by role; one that is not there is drawn when it is first named.

    A person in the role `hero` is there as `{hero}`, `{hero_possessive}`, `{hero_job}` and so on,
    an animal as `{animal}`, `{animal_food}`, ...; `{a_thing}` is the word with its article.

    Args:
        more: lists to draw from beside the world's; their texts may name other roles.
    """

    def __init__(
        self, rng: random.Random, more: Mapping[str, Sequence[str]] | None = None, **people: Person
    ):
        super().__init__()
        self._rng, self._more = rng, more or {}
        for role, person in people.items():
            more_of = {"possessive": person.possessive, **person.facts}
            self |= {role: person.name, **{f"{role}_{key}": v for key, v in more_of.items()}}

    def put(self, role: str, word: str) -> None:
        self[role] = word
        self.update((f"{role}_{k}", v) for k, v in WORLD["animals"].get(word, {}).items())

    def draw(self, *roles: str) -> None:
        """Draws words now that are otherwise drawn where a text names them."""
        for role in roles:
            words = self._more.get(role) or WORLD[WORDS[role]]
            self.put(role, self._rng.choice(words).format_map(self))

    # Drawn in the order of the text, not of the code: a new plot is a new text, and no function
    # that draws what it needs.
    def __missing__(self, role: str) -> str:
        if role.startswith("a_"):
            return a(self[role[2:]])
        self.draw(role)
        return self[role]


def fields(people: str = "", animals: str = "", words: str = "") -> str:
    """The names that a text may hold whose scene has these roles, for `Phrases`."""
    names = words.split()
    for role in people.split():
        names += [role, f"{role}_possessive", *(f"{role}_{key}" for key in ATTRIBUTES)]
    for role in animals.split():
        names += [role, f"{role}_food", f"{role}_home"]
    return " ".join([*names, *(f"a_{name}" for name in names)])
