"""The embedded world: the valley of Willowmere, its people, animals and things, drawn by a seed."""

import dataclasses
import hashlib
import random
from collections.abc import Mapping, Sequence

from nanochat_jax.data.phrases import Phrases

LISTS = (
    "valley assistant women men jobs pet_names places pets foods colors hobbies objects weathers "
    "days extra_words common_words animals"
)
WORLD = Phrases("nanochat_jax.demo", "content/world.toml", dict.fromkeys(LISTS.split(), ""))

ATTRIBUTES = ("job", "home", "pet", "pet_name", "food", "color", "hobby")
# Attributes that several people may share, and the lists of their values.
SHARED = {
    "home": "places", "pet": "pets", "food": "foods", "color": "colors", "hobby": "hobbies",
}  # fmt: skip
COUPLED = {"pet_name": "pet"}  # held out together: one gives the other away
HELD_OUT_SHARE = 0.2


@dataclasses.dataclass(frozen=True)
class Person:
    """One inhabitant; `facts` by attribute, as the sentences use them."""

    name: str
    pronoun: str
    possessive: str
    facts: Mapping[str, str]


def make_people(seed: int) -> tuple[Person, ...]:
    """The twenty people; jobs and pet names are unique, other attributes may be shared."""
    rng = random.Random(seed)
    names = [(name, "She", "her") for name in WORLD["women"]]
    names += [(name, "He", "his") for name in WORLD["men"]]
    rng.shuffle(names)
    # Unique, since conversations ask them the other way round: who is the baker?
    drawn = {key: rng.sample(WORLD[f"{key}s"], len(names)) for key in ("job", "pet_name")}
    drawn |= {key: _spread(rng, WORLD[values], len(names)) for key, values in SHARED.items()}
    return tuple(
        Person(*name, {key: values[i] for key, values in drawn.items()})
        for i, name in enumerate(names)
    )


def share(*words: object) -> float:
    """A number in [0, 1) that depends on the words alone: how things are held out, for good."""
    # Not a draw: documents, conversations and probes are made by different generators, and all of
    # them must agree on what is held out.
    text = "|".join(map(str, words)).encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest()) / 2**64


def held_out(person: Person, attribute: str) -> bool:
    """Whether a fact occurs in documents only and is never asked in a conversation."""
    return share("fact", person.name, COUPLED.get(attribute, attribute)) < HELD_OUT_SHARE


def a(noun: str) -> str:
    """The noun with its indefinite article."""
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"


def _spread(rng: random.Random, values: Sequence[str], count: int) -> list[str]:
    """`count` values, each used about equally often, in random order."""
    many = [v for _ in range(-(-count // len(values))) for v in rng.sample(values, len(values))]
    chosen = many[:count]
    rng.shuffle(chosen)
    return chosen
