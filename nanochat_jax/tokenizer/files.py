"""A tokenizer on disk: `ranks.tiktoken` and `meta.json`, and `tokenizer.json` for everyone else.

`ranks.tiktoken` is tiktoken's own text format: base64 of the bytes, a blank, the id, one a line.
"""

import base64
import binascii
import hashlib
import itertools
import json
import operator
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from nanochat_jax.files import whole_file

RANKS, META, HUGGINGFACE = "ranks.tiktoken", "meta.json", "tokenizer.json"
HOW_TO_TRAIN = "`python -m scripts.train --stage tokenizer`"


class Fields(NamedTuple):
    """What a tokenizer is made of: all that decides the ids of a text."""

    mergeable_ranks: dict[bytes, int]
    pattern: str
    special_tokens: dict[str, int]


def save(directory: Path, fields: Fields, huggingface: Any, token_bytes_V: np.ndarray) -> None:
    """Writes the three files, each whole or not at all; `huggingface` is of `to_huggingface`."""
    meta = {
        "format": 1, "hash": digest(fields), "vocab_size": len(token_bytes_V),
        "pattern": fields.pattern, "special_tokens": fields.special_tokens,
        "token_bytes": token_bytes_V.tolist(),
    }  # fmt: skip
    # meta.json comes last, and its hash is of the ranks beside it: a save that is cut off between
    # two files is noticed when it is loaded, and not taken for a tokenizer.
    contents = {
        HUGGINGFACE: huggingface.to_str().encode(),
        RANKS: ranks_text(fields.mergeable_ranks),
        META: json.dumps(meta, ensure_ascii=False).encode(),
    }
    for name, content in contents.items():
        with whole_file(directory / name) as file:
            file.write(content)


def load(directory: Path) -> Fields:
    """The fields of a Tokenizer from a directory that `save` wrote.

    Raises FileNotFoundError with the command that makes one, ValueError naming a damaged file.
    """
    for name in (META, RANKS):
        if not (directory / name).is_file():
            raise FileNotFoundError(
                f"no tokenizer in {directory} ({name} is missing); train one: {HOW_TO_TRAIN}"
            )
    try:
        meta = json.loads((directory / META).read_text(encoding="utf-8"))
        rest, expected = (str(meta["pattern"]), dict(meta["special_tokens"])), str(meta["hash"])
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{directory / META} is damaged ({error!r}); train the tokenizer again: {HOW_TO_TRAIN}"
        ) from error
    fields = Fields(read_ranks(directory / RANKS), *rest)
    if (found := digest(fields)) != expected:
        raise ValueError(
            f"{directory / RANKS} does not belong to {META} beside it (hash {found[:12]}, expected "
            f"{expected[:12]}): one was changed or half-written; train again: {HOW_TO_TRAIN}"
        )
    return fields


def digest(fields: Fields) -> str:
    """SHA-256, in hex, over everything that decides the ids of a text."""
    # A checkpoint names its tokenizer by this: with other ids its embeddings are noise.
    rest = json.dumps([fields.pattern, sorted(fields.special_tokens.items())])
    ranks = ranks_text(fields.mergeable_ranks)
    return hashlib.sha256(ranks + b"\n" + rest.encode("ascii")).hexdigest()


def ranks_text(ranks: Mapping[bytes, int]) -> bytes:
    """The ranks in tiktoken's text format, by rising id."""
    rows = sorted(ranks.items(), key=operator.itemgetter(1))
    return b"".join(b"%s %d\n" % (base64.b64encode(token), i) for token, i in rows)


def read_ranks(path: Path) -> dict[bytes, int]:
    """The ranks from tiktoken's text format. Raises ValueError naming the file and the line."""
    ranks: dict[bytes, int] = {}
    for number, line in enumerate(path.read_bytes().splitlines(), start=1):
        try:
            token, rank = line.split()
            ranks[base64.b64decode(token, validate=True)] = int(rank)
        except (ValueError, binascii.Error):
            raise ValueError(
                f"{path}, line {number}: expected base64 of the bytes, a blank and an id, got "
                f"{line[:60]!r}; train again: {HOW_TO_TRAIN}"
            ) from None
    return ranks


def to_huggingface(fields: Fields, merges: Sequence[tuple[int, int]]) -> Any:
    """The vocabulary as a `tokenizers.Tokenizer`: same ids for every text. `merges` by id.

    Unlike the original it takes `<|bos|>` in a text for the special token; whoever wants ordinary
    text sets `encode_special_tokens = True` after loading, the file cannot say it.
    """
    import tokenizers
    from tokenizers import decoders, models, pre_tokenizers

    letters = byte_letters()
    spell = lambda token: "".join(letters[b] for b in token)
    vocab = {spell(token): i for token, i in fields.mergeable_ranks.items()}
    by_id = {i: name for name, i in vocab.items()}
    spelled = [(by_id[a], by_id[b]) for a, b in merges]
    # ignore_merges: a chunk that is a token is that token, as in tiktoken, even where no sequence
    # of merges leads to it.
    made = tokenizers.Tokenizer(models.BPE(vocab=vocab, merges=spelled, ignore_merges=True))
    split = pre_tokenizers.Split(tokenizers.Regex(fields.pattern), behavior="isolated")
    to_letters = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    made.pre_tokenizer = pre_tokenizers.Sequence([split, to_letters])
    made.decoder = decoders.ByteLevel()
    special = sorted(fields.special_tokens, key=fields.special_tokens.__getitem__)
    made.add_special_tokens([tokenizers.AddedToken(name, special=True) for name in special])
    return made


def read_tokenizer_json(path: Path) -> Fields:
    """The fields of a Tokenizer from Hugging Face's file.

    Raises ValueError where it is no byte-level BPE with a split pattern whose merges rise with ids.
    """
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        special_tokens = {t["content"]: t["id"] for t in data["added_tokens"]}
        vocab, pattern = data["model"]["vocab"], _find_pattern(data["pre_tokenizer"])
        pairs = (m.split(" ") if isinstance(m, str) else m for m in data["model"]["merges"])
        ids = [vocab["".join(pair)] for pair in pairs]
        # Ranks say the order of merging by ids alone. A file that merges in another order has no
        # ranks that give its ids.
        if ids != sorted(ids):
            raise ValueError("its merges are not in the order of their ids")
        byte_of = {letter: byte for byte, letter in enumerate(byte_letters())}
        ordinary = vocab.keys() - special_tokens
        ranks = {bytes(byte_of[c] for c in token): vocab[token] for token in ordinary}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"{path}: expected a byte-level BPE of Hugging Face's tokenizers, split by a regular "
            f"expression; got something else ({error!r})"
        ) from error
    return Fields(ranks, pattern, special_tokens)


def byte_letters() -> list[str]:
    """The printable character that stands for each byte in Hugging Face's files (GPT-2's table)."""
    printable = {*range(33, 127), *range(161, 173), *range(174, 256)}
    others = itertools.count(256)
    return [chr(byte if byte in printable else next(others)) for byte in range(256)]


def _find_pattern(pre_tokenizer: Mapping[str, Any]) -> str:
    for step in pre_tokenizer.get("pretokenizers", [pre_tokenizer]):
        if step["type"] == "Split":
            return step["pattern"]["Regex"]
    raise ValueError("its pre-tokenizer does not split by a regular expression")
