"""Words to spell: those of the world, and invented ones."""

import functools
import itertools
import random
import string
from collections.abc import Iterator

from nanochat_jax.demo.facts import WORLD, share

CONSONANTS, VOWELS = "bdfgklmnprstvz", "aeiou"
SYLLABLES = [c + v for c in CONSONANTS for v in VOWELS]
# What invented words begin, go on and end with; so that pieces of every kind are met.
ONSETS = [*CONSONANTS, *"bl br ch cr dr fl gr h j pl qu sh st th tr w".split()]
RHYMES = [*VOWELS, *"ai ou ee oo an en in on ar er ack ell ight ing ot".split()]
# Of the world's words, how many are spelled in documents alone, and of invented words, how many in
# no text: probes ask for these, so that they measure spelling and not memory.
DOCUMENT_ONLY_SHARE = 0.17
NEVER_SHARE = 0.1
INVENTED_SHARE, COMMON_SHARE = 0.3, 0.35


def world_words() -> list[str]:
    """Every plain lower-case word of the world, sorted."""
    lists = "jobs places pets colors hobbies animals objects weathers extra_words"
    listed = [word for name in lists.split() for word in WORLD[name]]
    listed += " ".join(WORLD["foods"]).split()
    return sorted({w for w in listed if w.isalpha() and w.islower() and len(w) > 2})


@functools.cache
def words_to_spell(split: str | None) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Words of the world and common ones: those of training conversations, or the probes' own.

    All of them, which documents spell, where `split` is None.
    """
    fits = lambda w: (
        split is None or (share("spell", w) < DOCUMENT_ONLY_SHARE) == (split != "train")
    )
    known = world_words()
    common = sorted({*WORLD["common_words"]}.difference(known))
    return tuple(filter(fits, known)), tuple(filter(fits, common))


def to_spell(rng: random.Random, split: str | None = None) -> str:
    """A word to spell: of the world, a common one, or, but for probes, an invented one."""
    # Many words, and invented ones without end: of few words a model learns the letters by heart,
    # and no way to find those of another.
    kind = rng.random()
    if kind < INVENTED_SHARE and split in (None, "train"):
        return invented(rng)
    known, common = words_to_spell(split)
    return rng.choice(common if kind > 1 - COMMON_SHARE else known)


def invented(rng: random.Random, *, never: bool = False) -> str:
    """A made-up word of up to three syllables; `never`: of those no training text spells."""
    while True:
        word = "".join(_syllables(rng))
        # Some are words after all, of which a sixth is not to be asked for.
        if len(word) > 2 and not any(word in known for known in words_to_spell(None)):
            if (share("invented", word) < NEVER_SHARE) == never:
                return word


def _syllables(rng: random.Random) -> list[str]:
    if rng.random() < 0.3:
        return rng.choices(SYLLABLES, k=rng.choice((2, 2, 3)))
    return [rng.choice(ONSETS) + rng.choice(RHYMES) for _ in range(rng.choice((1, 2, 2)))]


def invented_name(rng: random.Random, *, never: bool = False) -> str:
    """A made-up person's name that is nobody's in the valley."""
    known = {*WORLD["women"], *WORLD["men"]}
    while True:
        name = "".join(rng.choices(SYLLABLES, k=2)).capitalize() + rng.choice(["", "n", "s", "r"])
        if name not in known and (share("name", name) < 0.2) == never:
            return name


def tokenizer_extra() -> Iterator[str]:
    """Lines that make every pair of digits, every letter and what is around it a token of its own.

    At this vocabulary size byte-pair encoding would learn no number: a sum would be a copying
    task over single digits, which a model this small fails.
    """
    numbers = " ".join(map(str, range(10, 100)))
    letters = " ".join(f"'.count('{letter}') {letter}" for letter in string.ascii_lowercase)
    return itertools.repeat(f"{numbers} {letters}", 3000)
