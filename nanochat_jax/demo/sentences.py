"""How the world is put into words: statements, questions, and the ways round a question.

Each attribute has one canonical statement (its first), which is also the answer to every question
about it: a small model learns one sentence for a fact, and holds to it when it is sampled.
"""

import re

from nanochat_jax.data.phrases import Phrases
from nanochat_jax.demo.facts import WORLD, Person, a

ANIMAL_ASPECTS = ("sound", "food", "home", "legs")
SENTENCES = Phrases(
    "nanochat_jax.demo",
    "content/sentences.toml",
    {
        "statements": "name value a_value possessive", "direct": "name", "clauses": "name",
        "held_direct": "name", "wraps": "clause", "reverse": "value a_value",
        "animals": "animal value a",
    },
)  # fmt: skip


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
