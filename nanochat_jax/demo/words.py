"""Words to spell: those of the world, and invented ones."""

import itertools
import random
from collections.abc import Iterator

from nanochat_jax.demo.facts import WORLD, share

SYLLABLES = [c + v for c in "bdfgklmnprstvz" for v in "aeiou"]
# Of the world's words, how many are spelled in documents alone, and of invented words, how many in
# no text: probes ask for these, so that they measure spelling and not memory.
DOCUMENT_ONLY_SHARE = 0.17
NEVER_SHARE = 0.1


def world_words() -> list[str]:
    """Every plain lower-case word of the world, sorted."""
    lists = "jobs places pets colors hobbies animals objects weathers extra_words"
    listed = [word for name in lists.split() for word in WORLD[name]]
    listed += " ".join(WORLD["foods"]).split()
    return sorted({w for w in listed if w.isalpha() and w.islower() and len(w) > 2})


def chat_words(split: str) -> list[str]:
    """World words to ask for: those of training conversations, or the probes' own."""
    held = split != "train"
    return [w for w in world_words() if (share("spell", w) < DOCUMENT_ONLY_SHARE) == held]


def invented(rng: random.Random, *, never: bool = False) -> str:
    """A made-up word of two or three syllables; `never`: of those no training text spells."""
    while True:
        word = "".join(rng.choices(SYLLABLES, k=rng.choice((2, 2, 3))))
        if (share("invented", word) < NEVER_SHARE) == never:
            return word


def invented_name(rng: random.Random, *, never: bool = False) -> str:
    """A made-up person's name that is nobody's in the valley."""
    known = {*WORLD["women"], *WORLD["men"]}
    while True:
        name = "".join(rng.choices(SYLLABLES, k=2)).capitalize() + rng.choice(["", "n", "s", "r"])
        if name not in known and (share("name", name) < 0.2) == never:
            return name


def tokenizer_extra() -> Iterator[str]:
    """Lines that make every pair of digits a token of its own.

    At this vocabulary size byte-pair encoding would learn no number: a sum would be a copying
    task over single digits, which a model this small fails.
    """
    return itertools.repeat(" ".join(map(str, range(10, 100))), 3000)
