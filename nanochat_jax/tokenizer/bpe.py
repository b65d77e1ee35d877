"""The tokenizer: byte-level BPE with nanochat's split pattern and special tokens.

Training and encoding run in Rust, on all cores and without the GIL. The ids are tiktoken's, which
the original encodes with; `save` also writes a file from which Hugging Face `tokenizers` gets the
same ids. Source: karpathy/nanochat nanochat/tokenizer.py, restated.
"""

import functools
import logging
import operator
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from nanochat_jax import _rustbpe
from nanochat_jax.tokenizer import chat_format, files
from nanochat_jax.tokenizer.chat_format import SPECIAL_TOKENS

log = logging.getLogger(__name__)

Token = int | str | None  # by id or by name

# What no merge crosses. GPT-4's pattern, but with digits in groups of two, not three: a small
# vocabulary would spend too many of its ids on numbers. Source: nanochat.
_PATTERN = (
    r"'(?i:[sdmt]|ll|ve|re)|[^\r\nLETTER\p{N}]?+WORD|DIGITS| ?[^\sLETTER\p{N}]++[\r\n]*"
    r"|\s*[\r\n]|\s+(?!\S)|\s+"
)
# To nanochat a mark ends a word, and in many scripts the vowels are marks: a token of Hindi ends
# before the next vowel sign then, whatever the vocabulary. `marks` counts them as letters. Figures
# for 13 languages: docs/log.md.
_WORDS = {
    "nanochat": {"LETTER": r"\p{L}", "WORD": r"\p{L}+"},
    "marks": {"LETTER": r"\p{L}\p{M}", "WORD": r"[\p{L}\p{M}]+"},
}
_DIGITS = {1: r"\p{N}", 2: r"\p{N}{1,2}"}


def _split_pattern(words: str, digits: int) -> str:
    pattern = _PATTERN.replace("DIGITS", _DIGITS[digits])
    for name, text in _WORDS[words].items():
        pattern = pattern.replace(name, text)
    return pattern


# By what a word is, and by how many digits of a number stay together.
SPLIT_PATTERNS = {(w, d): _split_pattern(w, d) for w in _WORDS for d in _DIGITS}
SPLIT_PATTERN = SPLIT_PATTERNS["nanochat", 2]


class Tokenizer:
    """An immutable vocabulary: byte strings with ranks, the split pattern, special tokens.

    `mergeable_ranks`, `pattern` and `special_tokens` are what a tiktoken Encoding is made of, so a
    tokenizer of the original becomes one of ours by passing its three fields, and back.

    Args:
        mergeable_ranks: byte string -> id; a lower id merges earlier.
        special_tokens: name -> id; None: nanochat's nine, right after the ranks.

    Raises:
        ValueError: a byte without an id, an id used twice, a pattern that is no expression.
    """

    def __init__(
        self, mergeable_ranks: Mapping[bytes, int], pattern: str = SPLIT_PATTERN,
        special_tokens: Mapping[str, int] | None = None,
    ):  # fmt: skip
        ranks = dict(sorted(mergeable_ranks.items(), key=operator.itemgetter(1)))
        if special_tokens is None:
            special_tokens = {name: len(ranks) + i for i, name in enumerate(SPECIAL_TOKENS)}
        self.mergeable_ranks, self.pattern = ranks, pattern
        self.special_tokens = dict(special_tokens)
        # Special tokens are no text and take no part in merging: `encode` cannot produce one, so
        # nothing that a user types can end a turn or open a call of a tool.
        self._bytes = {i: token for token, i in ranks.items()}
        self._bytes |= {i: name.encode("utf-8") for name, i in self.special_tokens.items()}
        total = len(ranks) + len(self.special_tokens)
        if (ids := len(self._bytes)) < total:
            raise ValueError(f"{total} tokens share {ids} ids; every token needs its own")
        self._encoder = _rustbpe.Encoder(ranks, pattern)

    @classmethod
    def train(
        cls, texts: Iterable[str], vocab_size: int, pattern: str = SPLIT_PATTERN,
        at_most: bool = False,
    ) -> "Tokenizer":  # fmt: skip
        """A vocabulary of `vocab_size` ids, the special tokens among them, trained on `texts`.

        Smaller if the texts run out of pairs to merge, with a warning unless so many were wanted
        `at_most`. The result depends on the
        texts alone, not on their order or the number of cores. Raises ValueError where the bytes
        and the special tokens have no room, or a text is no str.
        """
        least = 256 + len(SPECIAL_TOKENS)
        if vocab_size < least:
            raise ValueError(
                f"vocab_size={vocab_size} is too small: the 256 bytes and {len(SPECIAL_TOKENS)} "
                f"special tokens are always in; set --vocab-size to {least} or more"
            )
        if isinstance(texts, str):
            raise ValueError("train takes an iterable of texts, got one str; pass [text]")
        merges = _rustbpe.train(texts, vocab_size - len(SPECIAL_TOKENS), pattern)
        tokenizer = cls(_ranks_of(merges), pattern)
        if (size := tokenizer.get_vocab_size()) < vocab_size and not at_most:
            log.warning("the texts hold pairs for %d ids only, not for %d", size, vocab_size)
        return tokenizer

    def smaller(self, vocab_size: int) -> "Tokenizer":
        """What training would have given at `vocab_size`, of one that was trained for more."""
        count = vocab_size - len(self.special_tokens)
        return Tokenizer({token: i for token, i in self.mergeable_ranks.items() if i < count},
                         self.pattern)  # fmt: skip

    @classmethod
    def load(cls, directory: str | os.PathLike[str]) -> "Tokenizer":
        """The tokenizer that `save` wrote. Raises as `files.load` does."""
        return cls(*files.load(Path(directory)))

    @classmethod
    def from_tokenizer_json(cls, path: str | os.PathLike[str]) -> "Tokenizer":
        """A byte-level BPE from a `tokenizer.json` of Hugging Face; ValueError for any other."""
        return cls(*files.read_tokenizer_json(Path(path)))

    def save(self, directory: str | os.PathLike[str]) -> None:
        """Writes `tokenizer.json`, `ranks.tiktoken` and `meta.json`, each whole or not at all."""
        files.save(Path(directory), self._fields, self.to_huggingface(), self.token_bytes())

    def to_huggingface(self) -> Any:
        """The same as a `tokenizers.Tokenizer`; see `files.to_huggingface`."""
        return files.to_huggingface(self._fields, self.merges())

    def merges(self) -> list[tuple[int, int]]:
        """(left, right): the two tokens that each merged token joins, in the order of its id."""
        return [pair for token in self.mergeable_ranks if (pair := self._encoder.halves(token))]

    @functools.cached_property
    def hash(self) -> str:
        """SHA-256 over ranks, pattern and special tokens: equal if and only if the ids are."""
        return files.digest(self._fields)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Tokenizer) and self.hash == other.hash

    def __hash__(self) -> int:
        return hash(self.hash)

    def __reduce__(self):
        return Tokenizer, tuple(self._fields)

    def __repr__(self) -> str:
        return f"Tokenizer(vocab_size={self.get_vocab_size()}, hash={self.hash[:12]!r})"

    def get_vocab_size(self) -> int:
        """The highest id plus one."""
        # Not how many there are: OpenAI's vocabularies leave gaps between their special tokens.
        return max(self._bytes) + 1

    def get_special_tokens(self) -> set[str]:
        return set(self.special_tokens)

    def get_bos_token_id(self) -> int:
        """The id that begins every document; OpenAI's vocabularies call it `<|endoftext|>`."""
        ours = chat_format.BOS in self.special_tokens
        return self.encode_special(chat_format.BOS if ours else "<|endoftext|>")

    def encode_special(self, token: str) -> int:
        """The id of a special token, or of an ordinary one, by its whole text; else ValueError."""
        ordinary = self.mergeable_ranks.get(token.encode("utf-8", "surrogatepass"))
        found = self.special_tokens.get(token, ordinary)
        if found is None:
            known = ", ".join(self.special_tokens)
            raise ValueError(f"{token!r} is not a single token; the special tokens are {known}")
        return found

    def id_to_bytes(self, i: int) -> bytes:
        """The bytes of one token; a special token's are those of its name."""
        return self.decode_bytes([i])

    def id_to_token(self, i: int) -> str:
        return self.decode([i])

    def token_bytes(self, corrected: bool = True) -> np.ndarray:
        """int32 [V]: how many bytes of text each id stands for; 0 for special tokens.

        `corrected=False` counts as the original did until July 2026: by the decoded string, in
        which a byte that is no character by itself becomes U+FFFD, three bytes. Bits per byte come
        out a little lower that way.
        """
        sizes = np.zeros(self.get_vocab_size(), dtype=np.int32)
        for token, i in self.mergeable_ranks.items():
            text = token.decode("utf-8", "replace")
            old = "" if text in self.special_tokens else text
            sizes[i] = len(token if corrected else old.encode("utf-8"))
        return sizes

    def encode(
        self, text: str | Sequence[str], prepend: Token = None, append: Token = None,
        num_threads: int | None = None,
    ) -> list[int] | list[list[int]]:  # fmt: skip
        """The ids of a text, or of each text of a list (side by side on `num_threads` cores).

        Always ordinary text: `<|bos|>` inside it is seven characters. `prepend` and `append`, an id
        or a token by name, are added to every row. Raises ValueError for what is no text.
        """
        before = [] if prepend is None else [self._id(prepend)]
        after = [] if append is None else [self._id(append)]
        if isinstance(text, str):
            return before + self._encoder.encode(text) + after
        if not isinstance(text, list | tuple):
            raise ValueError(
                f"encode takes a str or a list of str, got {type(text).__name__}: {text!r:.80}"
            )
        rows = self._encoder.encode_batch(list(text), num_threads or os.cpu_count() or 1)
        return [before + row + after for row in rows] if before or after else rows

    __call__ = encode

    def decode_bytes(self, ids: Iterable[int]) -> bytes:
        """The bytes of the tokens, end to end. Raises ValueError for an id that does not exist."""
        try:
            # index: numpy's and JAX's integers are ids as well, a float is a mistake.
            return b"".join([self._bytes[operator.index(i)] for i in ids])
        except KeyError as error:
            last = self.get_vocab_size() - 1
            raise ValueError(f"no token has the id {error}; ids run from 0 to {last}") from None

    def decode(self, ids: Iterable[int]) -> str:
        """The text of the tokens; bytes that make no character become U+FFFD."""
        return self.decode_bytes(ids).decode("utf-8", "replace")

    # The original's names of them.
    render_conversation = chat_format.render
    render_for_completion = chat_format.render_for_completion

    def render(self, item: Mapping[str, Any], max_tokens: int = 2048):
        """(ids, mask) of a conversation, or of `{"text": ...}`: bos, then all of it supervised."""
        if "text" not in item:
            return self.render_conversation(item, max_tokens)
        # Every document begins with bos. Several share a row, attention crosses their borders, and
        # this token is the only sign that what stands before it is another text.
        ids = self.encode(item["text"], prepend=self.get_bos_token_id())[:max_tokens]
        return ids, ([0] + [1] * len(ids))[: len(ids)]

    def visualize_tokenization(
        self, ids: Sequence[int], mask: Sequence[int], with_token_id: bool = False
    ) -> str:
        """The tokens between bars for a terminal, green where mask is 1, red elsewhere."""
        shown = []
        for i, supervised in zip(ids, mask, strict=True):
            shown.append((92 if supervised else 91, self.decode([i])))
            shown += [(90, f"({i})")] * with_token_id
        return "|".join(f"\033[{color}m{text}\033[0m" for color, text in shown)

    @property
    def _fields(self) -> files.Fields:
        return files.Fields(self.mergeable_ranks, self.pattern, self.special_tokens)

    def _id(self, token: int | str) -> int:
        return self.encode_special(token) if isinstance(token, str) else operator.index(token)


def _ranks_of(merges: Sequence[tuple[int, int]]) -> dict[bytes, int]:
    """Byte string -> id of what training merged."""
    # On bytes, not characters: 256 base tokens spell every text of every script, so there is no
    # unknown token and decoding gives back the text exactly. Source: GPT-2.
    tokens = [bytes([i]) for i in range(256)]
    for left, right in merges:
        tokens.append(tokens[left] + tokens[right])
    # Should two merges spell the same bytes, the first keeps them and the ids stay without a gap.
    return {token: i for i, token in enumerate(dict.fromkeys(tokens))}
