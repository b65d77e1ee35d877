"""In which scripts a text is written, how a tokenizer cuts each, and whether it is normalised."""

import collections
import functools
import itertools
import unicodedata
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from nanochat_jax.tokenizer import Tokenizer

OTHERS = "others"
# What is of no script, by its category in Unicode or the first letter of that: of C those that are
# for private use (Co) or of no character at all (Cn) are not seen as blanks.
NO_SCRIPT = {
    "N": "numbers", "P": "punctuation", "S": "signs", "Z": "blanks", "Cc": "blanks", "Cf": "blanks",
    "C": OTHERS,
}  # fmt: skip
# First words of names that are no script's, and scripts that go by another name.
RENAMED = {
    "CJK": "Han", "IDEOGRAPHIC": "Han", "KATAKANA-HIRAGANA": "Katakana",
    "COMBINING": "accents apart", "VARIATION": "signs",
}  # fmt: skip
WIDTHS = ("HALFWIDTH", "FULLWIDTH")
LEAST = 0.001  # of the characters: what is rarer is one row together


class Row(NamedTuple):
    """Of one script: its share of all characters, and bytes of a token that ends in it."""

    script: str
    share: float
    bytes_per_token: float


@functools.cache
def script_of(character: str) -> str:
    """`Devanagari`, `Latin`, ...; of what is in no script `numbers`, `punctuation`, `blanks`,
    `signs`, `others`."""
    # Python has no table of scripts, but the name of a letter begins with that of its script.
    kind = unicodedata.category(character)
    for known in (kind, kind[0]):
        if known in NO_SCRIPT:
            return NO_SCRIPT[known]
    first, *rest = unicodedata.name(character, "unnamed").split()
    first = rest[0] if first in WIDTHS and rest else first
    return RENAMED.get(first, first.capitalize())


def table(texts: Sequence[str], tokenizer: Tokenizer) -> list[Row]:
    """The scripts of some texts, by falling share. A token is of the script of its last
    character."""
    codes_C = np.frombuffer("".join(texts).encode("utf-32-le"), np.uint32)
    unique_U, of_C = np.unique(codes_C, return_inverse=True)
    scripts, of_U = np.unique([script_of(chr(c)) for c in unique_U], return_inverse=True)
    script_C = of_U[of_C]
    shares_S = np.bincount(script_C) / len(codes_C)
    own_S = (shares_S >= LEAST) & (scripts != OTHERS)
    script_C = np.where(own_S, np.arange(len(scripts)), len(scripts))[script_C]
    names, count = [*map(str, scripts), OTHERS], len(scripts) + 1
    widths_C = np.searchsorted([0x80, 0x800, 0x10000], codes_C, side="right") + 1
    ids = itertools.chain.from_iterable(tokenizer.encode(list(texts)))
    sizes_T = tokenizer.token_bytes()[list(ids)]
    script_T = np.repeat(script_C, widths_C)[np.cumsum(sizes_T) - 1]
    tokens_S = np.bincount(script_T, minlength=count)
    bytes_S = np.bincount(script_T, weights=sizes_T, minlength=count)
    shares_S = np.bincount(script_C, minlength=count) / len(codes_C)
    per_token_S = bytes_S / np.maximum(tokens_S, 1)
    rows = map(Row, names, shares_S.tolist(), per_token_S.tolist())
    return sorted((row for row in rows if row.share >= LEAST / 2), key=lambda row: -row.share)


def marks_share(text: str) -> float:
    """Which part of the letters and marks of a text are marks."""
    kinds = collections.Counter()
    for character, count in collections.Counter(text).items():
        kinds[unicodedata.category(character)[0]] += count
    return kinds["M"] / max(1, kinds["M"] + kinds["L"])


def not_normalised(text: str) -> tuple[float, str]:
    """(share of the words that NFC writes otherwise, the most frequent of them)."""
    words = collections.Counter(text.split())
    other = {w: n for w, n in words.items() if not unicodedata.is_normalized("NFC", w)}
    share = sum(other.values()) / max(1, words.total())
    return share, max(other, key=other.__getitem__, default="")
