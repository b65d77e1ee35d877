"""A tokenizer on disk: `ranks.tiktoken` and `meta.json`, and `tokenizer.json` for everyone else.

`ranks.tiktoken` is tiktoken's own text format: base64 of the bytes, a blank, the id, one a line.
"""

import base64
import binascii
import hashlib
import json
import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nanochat_jax.tokenizer.bpe import Tokenizer

RANKS, META, HUGGINGFACE = "ranks.tiktoken", "meta.json", "tokenizer.json"
HOW_TO_TRAIN = "`python -m scripts.train --stage tokenizer`"

# mergeable ranks, pattern, special tokens
Fields = tuple[dict[bytes, int], str, dict[str, int]]


def save(tokenizer: "Tokenizer", directory: Path) -> None:
    """Writes the three files, each by a rename; `meta.json`, the last, vouches for the ranks."""
    directory.mkdir(parents=True, exist_ok=True)
    meta = {
        "format": 1,
        "hash": tokenizer.hash,
        "vocab_size": tokenizer.get_vocab_size(),
        "pattern": tokenizer.pattern,
        "special_tokens": tokenizer.special_tokens,
        "token_bytes": tokenizer.token_bytes().tolist(),
    }
    _write(directory / HUGGINGFACE, tokenizer.to_huggingface().to_str().encode("utf-8"))
    _write(directory / RANKS, ranks_text(tokenizer.mergeable_ranks))
    _write(directory / META, json.dumps(meta, ensure_ascii=False).encode("utf-8"))


def load(directory: Path) -> Fields:
    """The fields of a Tokenizer from a directory that `save` wrote.

    Raises:
        FileNotFoundError: none there; the message names the command that makes it.
        ValueError: a damaged file, by name.
    """
    for name in (META, RANKS):
        if not (directory / name).is_file():
            raise FileNotFoundError(
                f"no tokenizer in {directory} ({name} is missing); train one: {HOW_TO_TRAIN}"
            )
    pattern, special_tokens, expected = _read_meta(directory / META)
    ranks = read_ranks(directory / RANKS)
    found = digest(ranks, pattern, special_tokens)
    if found != expected:
        raise ValueError(
            f"{directory / RANKS} does not belong to {META} beside it (hash {found[:12]}, expected "
            f"{expected[:12]}): one was changed or half-written; train again: {HOW_TO_TRAIN}"
        )
    return ranks, pattern, special_tokens


def digest(ranks: Mapping[bytes, int], pattern: str, special_tokens: Mapping[str, int]) -> str:
    """SHA-256, in hex, over everything that decides the ids of a text."""
    rest = json.dumps([pattern, sorted(special_tokens.items())])
    return hashlib.sha256(ranks_text(ranks) + b"\n" + rest.encode("ascii")).hexdigest()


def ranks_text(ranks: Mapping[bytes, int]) -> bytes:
    """The ranks in tiktoken's text format, by rising id."""
    rows = sorted((i, token) for token, i in ranks.items())
    return b"".join(b"%s %d\n" % (base64.b64encode(token), i) for i, token in rows)


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


def huggingface(tokenizer: "Tokenizer") -> Any:
    """The same vocabulary as a `tokenizers.Tokenizer`: same ids for every text.

    Unlike the original it takes `<|bos|>` in a text for the special token; whoever wants ordinary
    text sets `encode_special_tokens = True` after loading, the file cannot say it.
    """
    import tokenizers
    from tokenizers import decoders, models, pre_tokenizers

    letters = byte_letters()
    spell = lambda token: "".join(letters[b] for b in token)
    vocab = {spell(token): i for token, i in tokenizer.mergeable_ranks.items()}
    by_id = {i: name for name, i in vocab.items()}
    merges = [(by_id[a], by_id[b]) for a, b in tokenizer.merges()]
    made = tokenizers.Tokenizer(models.BPE(vocab=vocab, merges=merges, ignore_merges=True))
    split = pre_tokenizers.Split(tokenizers.Regex(tokenizer.pattern), behavior="isolated")
    to_letters = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    made.pre_tokenizer = pre_tokenizers.Sequence([split, to_letters])
    made.decoder = decoders.ByteLevel()
    in_order = sorted(tokenizer.special_tokens.items(), key=lambda item: item[1])
    made.add_special_tokens([tokenizers.AddedToken(n, special=True) for n, _ in in_order])
    return made


def read_tokenizer_json(path: Path) -> Fields:
    """The fields of a Tokenizer from Hugging Face's file.

    Raises:
        ValueError: not a byte-level BPE with a split pattern whose merges rise with the ids.
    """
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        special_tokens = {t["content"]: t["id"] for t in data["added_tokens"]}
        vocab, pattern = data["model"]["vocab"], _find_pattern(data["pre_tokenizer"])
        _check_merges(vocab, data["model"]["merges"])
        byte_of = {letter: byte for byte, letter in enumerate(byte_letters())}
        ordinary = vocab.keys() - special_tokens
        ranks = {bytes(byte_of[c] for c in token): vocab[token] for token in ordinary}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"{path}: expected a byte-level BPE of Hugging Face's tokenizers, split by a regular "
            f"expression; got something else ({error!r})"
        ) from error
    return ranks, pattern, special_tokens


def _check_merges(vocab: Mapping[str, int], merges: Sequence[Any]) -> None:
    pairs = (m.split(" ") if isinstance(m, str) else m for m in merges)
    ids = [vocab["".join(pair)] for pair in pairs]
    if ids != sorted(ids):
        raise ValueError("its merges are not in the order of their ids")


def byte_letters() -> list[str]:
    """The printable character that stands for each byte in Hugging Face's files (GPT-2's table)."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    table = {byte: chr(byte) for byte in printable}
    rest = (byte for byte in range(256) if byte not in table)
    table.update({byte: chr(256 + n) for n, byte in enumerate(rest)})
    return [table[byte] for byte in range(256)]


def _find_pattern(pre_tokenizer: Mapping[str, Any]) -> str:
    for step in pre_tokenizer.get("pretokenizers", [pre_tokenizer]):
        if step["type"] == "Split":
            return step["pattern"]["Regex"]
    raise ValueError("its pre-tokenizer does not split by a regular expression")


def _read_meta(path: Path) -> tuple[str, dict[str, int], str]:
    try:
        meta = json.loads(path.read_text(encoding="utf-8"))
        return str(meta["pattern"]), dict(meta["special_tokens"]), str(meta["hash"])
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{path} is damaged ({error!r}); train the tokenizer again: {HOW_TO_TRAIN}"
        ) from error


def _write(path: Path, content: bytes) -> None:
    """Puts `content` at `path` in one step: a reader finds the old file or the new one, whole."""
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
