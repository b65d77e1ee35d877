"""Merges, ids, token bytes and decoding equal the original's, on every golden tokenizer."""

import itertools
import re

import numpy as np
import pyarrow.parquet as pq
import pytest
import tokenizers

from nanochat_jax.tokenizer import SPECIAL_TOKENS, SPLIT_PATTERN, Tokenizer
from tests.golden.conftest import beside, era_of, files, load_json
from tests.golden.tokenizers import tokenizer_in

TOKENIZERS = files("tokenizer_*.json")


def _texts(path, golden):
    """What it was trained on: the text file if it is named by its size, else the train shards."""
    if re.fullmatch(r"tokenizer_\d+.*", path.stem):
        with open(_text_file(path), encoding="utf-8", newline="") as file:
            return file.read().split("\x1e")
    shards = sorted(beside(path.parent, "loader_data*").rglob("*.parquet"))[:-1]
    texts = (text for shard in shards for text in pq.read_table(shard)["text"].to_pylist())
    return _capped(texts, golden.get("max_chars", 10_000_000_000), golden.get("doc_cap", 10_000))


def _text_file(path):
    """The text that its `how` names, else the only one beside it."""
    named = re.search(r"text_\w+\.txt", load_json(path).get("how", ""))
    return beside(path.parent, named[0] if named else "text_*.txt")


def _capped(texts, max_chars, doc_cap):
    cropped = [text[:doc_cap] for text in texts]
    totals = itertools.accumulate(map(len, cropped))
    return [text for text, n in zip(cropped, totals, strict=True) if n - len(text) <= max_chars]


@pytest.mark.parametrize("path", TOKENIZERS)
def test_training_gives_the_original_s_vocabulary(path):
    golden = load_json(path)
    tokenizer = Tokenizer.train(_texts(path, golden), golden["vocab_size"])
    assert tokenizer.mergeable_ranks == tokenizer_in(path).mergeable_ranks
    assert tokenizer.special_tokens == golden["special_tokens"]
    assert tokenizer.get_vocab_size() == golden["vocab_size"]
    assert (tokenizer.pattern, SPLIT_PATTERN) == (golden["pattern"],) * 2


@pytest.mark.parametrize("path", TOKENIZERS)
def test_special_tokens_have_the_original_s_ids(path):
    golden = load_json(path)
    tokenizer = tokenizer_in(path)
    assert list(SPECIAL_TOKENS) == golden["special_tokens_order"]
    assert tokenizer.get_bos_token_id() == golden["bos_token_id"]
    for name, i in golden["special_tokens"].items():
        assert tokenizer.encode_special(name) == i
        assert tokenizer.decode([i]) == name


@pytest.mark.parametrize("path", TOKENIZERS)
def test_bytes_per_token_follow_the_rule_of_their_era(path):
    sizes = tokenizer_in(path).token_bytes(corrected=era_of(path) == "current")
    np.testing.assert_array_equal(sizes, load_json(path)["token_bytes"])


def _with(key):
    """The golden tokenizers that hold `key`: the capped one has merges only."""
    return [p for p in TOKENIZERS if p.values[0] is None or key in load_json(p.values[0])]


@pytest.mark.parametrize("path", _with("encodings"))
def test_every_text_has_the_original_s_ids(path):
    cases = load_json(path)["encodings"]
    texts = [bytes.fromhex(case["utf8_hex"]).decode("utf-8") for case in cases]
    expected = [case["ids"] for case in cases]
    assert [tokenizer_in(path).encode(text) for text in texts] == expected
    assert tokenizer_in(path).encode(texts) == expected


@pytest.mark.parametrize("path", _with("encodings"))
def test_the_written_huggingface_file_gives_the_same_ids(path, tmp_path):
    tokenizer_in(path).save(tmp_path)
    theirs = tokenizers.Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    theirs.encode_special_tokens = True
    for case in load_json(path)["encodings"]:
        text = bytes.fromhex(case["utf8_hex"]).decode("utf-8")
        assert theirs.encode(text, add_special_tokens=False).ids == case["ids"], text


@pytest.mark.parametrize("path", _with("encode_api"))
def test_prepend_append_and_lists_give_the_original_s_ids(path):
    tokenizer = tokenizer_in(path)
    for case in load_json(path)["encode_api"]:
        assert _call(tokenizer, case) == case["ids"], case["call"]


def _call(tokenizer, case):
    """Runs `encode(text, prepend=..., append=...)` with the arguments that its `call` spells."""
    bos = tokenizer.get_bos_token_id()
    given = re.findall(r"(prepend|append|num_threads)=('[^']*'|\w+)", case["call"])
    value = lambda v: v[1:-1] if v[0] == "'" else bos if v == "bos_id" else int(v)
    return tokenizer.encode(case["text"], **{name: value(v) for name, v in given})


@pytest.mark.parametrize("path", _with("decodings"))
def test_every_row_of_ids_decodes_to_the_same_text(path):
    for case in load_json(path)["decodings"]:
        assert tokenizer_in(path).decode(case["ids"]) == case["text"], case["ids"]
