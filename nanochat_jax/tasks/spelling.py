"""Spelling, made from a list of words: SimpleSpelling, and SpellingBee, which counts letters.

A model sees tokens and has to learn what letters each is spelled of before it can count them: that
is SimpleSpelling. SpellingBee counts by hand, a letter a line so that no step is large, and checks
itself with the tool. The original leaks: its test example `i` is its training example `i + 1`, and
both splits draw from all words. Here a word belongs to one split, for both tasks, and the seeds of
the splits never meet; `original=True` gives the original's rows.
Source: nanochat October 2025 `tasks/spellingbee.py` (templates, draws, wording).
"""

import functools
import importlib.resources
import random
import zlib
from collections.abc import Sequence
from typing import Any, Literal

from nanochat_jax.tasks import gsm8k
from nanochat_jax.tasks.task import Task
from nanochat_jax.tokenizer.chat_format import exchange

Split = Literal["train", "test"]
HELD_OUT = 10  # one word in so many is for testing
TEST_SEEDS = 1 << 40  # beyond the seeds of any training example
LETTERS = "abcdefghijklmnopqrstuvwxyz"
QUOTES = ("", "'", '"')


def simple_spelling(
    words: Sequence[str], size: int, split: Split, *, original: bool = False
) -> Task:
    """`size` words to spell; nothing to score."""
    chosen = list(_words(words, split, original))
    random.Random(42).shuffle(chosen)
    seeds = _seeds(size, split, original)
    return Task("SimpleSpelling", seeds, functools.partial(_spell, chosen))


def spelling_bee(words: Sequence[str], size: int, split: Split, *, original: bool = False) -> Task:
    """`size` questions how often a letter stands in a word, worked by hand and by the tool."""
    row = functools.partial(_bee, _words(words, split, original))
    seeds = _seeds(size, split, original)
    return Task("SpellingBee", seeds, row, "generative", gsm8k.score, gsm8k.score)


@functools.cache
def _templates() -> list[str]:
    """The 51 ways to ask."""
    # In the original's order, since a row is a draw from them. Several languages, and a third in
    # lower case: users ask in all ways, and the rows are to teach spelling, not one sentence.
    file = importlib.resources.files("nanochat_jax.tasks").joinpath("spelling_questions.txt")
    return file.read_text("utf-8").splitlines()


def held_out(word: str) -> bool:
    """Whether a word is for testing: by the word alone, so that a longer list moves none."""
    return zlib.crc32(word.encode()) % HELD_OUT == 0


def _words(words: Sequence[str], split: Split, original: bool) -> Sequence[str]:
    chosen = words if original else [w for w in words if held_out(w) == (split == "test")]
    if not chosen:
        raise ValueError(f"none of the {len(words)} words is for the {split} split; give more")
    return chosen


def _seeds(size: int, split: Split, original: bool) -> range:
    """The seed of each row."""
    # The original seeds test rows with -(i + 1), of which Python takes the absolute value.
    first = 0 if split == "train" else 1 if original else TEST_SEEDS
    return range(first, first + size)


def _spell(words: Sequence[str], seed: int) -> dict[str, Any]:
    word = random.Random(seed).choice(words)
    return exchange(f"Spell the word: {word}", f"{word}:{','.join(word)}")


def _bee(words: Sequence[str], seed: int) -> dict[str, Any]:
    rng = random.Random(seed)
    # The order of the draws makes the rows: it is the original's, and must stay. Nine letters in
    # ten are of the word, or most counts would be 0.
    word = rng.choice(words)
    letter = rng.choice(word) if rng.random() < 0.9 else rng.choice(LETTERS)
    template = rng.choice(_templates())
    if rng.random() < 0.3:
        template = template.lower()
    quoted = lambda text, quote: f"{quote}{text}{quote}"
    asked = {"letter": quoted(letter, rng.choice(QUOTES)), "word": quoted(word, rng.choice(QUOTES))}
    question = template.format(**asked) + "?" * (rng.random() < 0.5)
    return exchange(question, _worked(word, letter))


def _worked(word: str, letter: str) -> list[dict[str, str]]:
    """The answer: counted by hand, then by the tool."""
    count = word.count(letter)
    parts = (
        ("text", _by_hand(word, letter)),
        ("text", "\n\nLet me double check this using Python:\n\n"),
        ("python", f"'{word}'.count('{letter}')"),
        ("python_output", str(count)),
        ("text", f"\n\nPython gives us {count}.\n\nMy final answer is:\n\n#### {count}"),
    )
    return [{"type": kind, "text": text} for kind, text in parts]


def _by_hand(word: str, letter: str) -> str:
    lines, count = "", 0
    for i, char in enumerate(word, 1):
        count += char == letter
        lines += f"{i}:{char}{f' hit! count={count}' if char == letter else ''}\n"
    return (
        f"We are asked to find the number '{letter}' in the word '{word}'. "
        "Let me try a manual approach first.\n\n"
        f"First spell the word out:\n{word}:{','.join(word)}\n\n"
        f"Then count the occurrences of '{letter}':\n{lines}\nThis gives us {count}."
    )
