"""Encoding loses nothing, and gives the ids of tiktoken's rule and of Hugging Face's library."""

import functools
import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nanochat_jax.tokenizer import SPECIAL_TOKENS, SPLIT_PATTERNS, Tokenizer

SAMPLE = (
    "The children's kite flew over the hill. It's 2025 — they've 12,345 reasons!\n\n"
    "  def f(x):\n\treturn x ** 2\r\nnaïve café 你好世界 🌍🌍 ١٢٣ Straße ſ'ſ\n"
)
TOKENIZER = Tokenizer.train([SAMPLE * 2, SAMPLE.upper(), "the the then there"], 420)
HINDI = "नमस्ते दुनिया, यह किताब हिन्दी में है और वह किताब भी। "
MARKED = Tokenizer.train([SAMPLE, HINDI * 3], 420, SPLIT_PATTERNS["marks", 1])

# Ordinary text, and what splits oddly: blanks of all sorts, digits, apostrophes, combining marks.
ODD = st.text(
    alphabet="aZ'sſ19٣²½ \t\n\r\u00a0\u2003\u0085\u200b.,!é\u0301कि\u094d\u200d漢🙂\x00",
    max_size=30,
)
TEXT = st.one_of(st.text(max_size=40), ODD)


@functools.cache
def theirs(tokenizer: Tokenizer):
    made = tokenizer.to_huggingface()
    made.encode_special_tokens = True
    return made


@given(TEXT)
def test_decoding_gives_back_the_text(text):
    ids = TOKENIZER.encode(text)
    assert TOKENIZER.decode(ids) == text
    assert TOKENIZER.decode_bytes(ids) == text.encode("utf-8")


@pytest.mark.parametrize("tokenizer", [TOKENIZER, MARKED], ids=["nanochat", "marks"])
@given(TEXT)
def test_ids_are_those_of_huggingface_tokenizers(tokenizer, text):
    assert tokenizer.encode(text) == theirs(tokenizer).encode(text, add_special_tokens=False).ids


def test_a_word_whose_vowels_are_marks_is_one_token_where_the_pattern_says_so():
    assert len(MARKED.encode(" किताब")) == 1 and MARKED.decode(MARKED.encode(HINDI)) == HINDI
    nanochats = Tokenizer.train([SAMPLE, HINDI * 3], 409)
    assert [nanochats.decode([i]) for i in nanochats.encode(" किताब")] == [" क", "ित", "ाब"]


def _by_rule(word: bytes) -> list[int]:
    """Join the two neighbours of the lowest rank, the leftmost first, until none is a token."""
    ranks, parts = TOKENIZER.mergeable_ranks, [bytes([b]) for b in word]
    while True:
        found = [(ranks[a + b], i) for i, (a, b) in enumerate(zip(parts, parts[1:], strict=False))
                 if a + b in ranks]  # fmt: skip
        if not found:
            return [ranks[part] for part in parts]
        i = min(found)[1]
        parts[i : i + 2] = [parts[i] + parts[i + 1]]


@given(st.text(alphabet="theranso", min_size=1, max_size=40))
def test_within_a_word_the_lowest_rank_merges_first(word):
    assert TOKENIZER.encode(word) == _by_rule(word.encode())


@given(st.lists(TEXT, max_size=10), st.integers(1, 4))
def test_a_batch_is_its_texts_one_by_one(texts, num_threads):
    expected = [[5, *TOKENIZER.encode(text), 268] for text in texts]
    assert TOKENIZER.encode(texts, prepend=5, append=268, num_threads=num_threads) == expected


@pytest.mark.parametrize("name", SPECIAL_TOKENS)
def test_special_tokens_in_a_text_are_ordinary_text(name):
    ids = TOKENIZER.encode(f"say {name} now")
    assert max(ids) < TOKENIZER.get_bos_token_id()
    assert TOKENIZER.decode(ids) == f"say {name} now"


def test_prepend_and_append_take_an_id_or_a_name():
    bos = TOKENIZER.get_bos_token_id()
    named = TOKENIZER.encode("hi", prepend="<|bos|>", append="<|assistant_end|>")
    assert named == TOKENIZER.encode("hi", prepend=bos, append=bos + 4)
    assert TOKENIZER("") == []


@pytest.mark.parametrize(
    ("broken", "mended"),
    [("a\ud800b", "a\ufffdb"), ("\udfff\ud800", "\ufffd\ufffd"), ("\ud83d\ude42", "🙂")],
)
def test_half_a_surrogate_pair_becomes_the_replacement_character(broken, mended):
    assert TOKENIZER.encode(broken) == TOKENIZER.encode(mended)
    assert TOKENIZER.encode([broken]) == [TOKENIZER.encode(mended)]


def test_bytes_that_make_no_character_decode_to_the_replacement_character():
    assert TOKENIZER.decode([0xC3]) == "\ufffd"
    assert TOKENIZER.decode([0xC3, 0xA9]) == "é"
    assert TOKENIZER.id_to_bytes(0xC3) == b"\xc3"
    assert TOKENIZER.id_to_token(TOKENIZER.get_bos_token_id()) == "<|bos|>"


def test_ids_may_be_numpy_integers():
    ids = TOKENIZER.encode("the kite")
    assert TOKENIZER.decode(np.asarray(ids, np.int32)) == "the kite"


def test_bytes_per_token_add_up_to_the_text():
    sizes = TOKENIZER.token_bytes()
    ids = TOKENIZER.encode(SAMPLE)
    assert sizes.dtype == np.int32 and sizes.shape == (TOKENIZER.get_vocab_size(),)
    assert sizes[ids].sum() == len(SAMPLE.encode("utf-8"))
    assert not sizes[[TOKENIZER.encode_special(name) for name in SPECIAL_TOKENS]].any()


def test_the_old_rule_counts_a_lone_byte_as_three():
    corrected, old = TOKENIZER.token_bytes(), TOKENIZER.token_bytes(corrected=False)
    assert (corrected[:256] == 1).all()
    assert (old[:128] == 1).all() and (old[128:256] == 3).all()
    valid = [i for i in range(256, 411) if "\ufffd" not in TOKENIZER.decode([i])]
    np.testing.assert_array_equal(old[valid], corrected[valid])


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda t: t.encode(5), "got int"),
        (lambda t: t.encode(["a", None]), "text 1 is NoneType"),
        (lambda t: t.encode_special("two words"), "not a single token"),
        (lambda t: t.encode("a", prepend="<|nope|>"), "special tokens are <|bos|>"),
        (lambda t: t.decode([0, 420]), "id 420; ids run from 0 to 419"),
        (lambda t: t.decode([-1]), "id -1"),
        (lambda t: Tokenizer({b"a": 0}), "single byte 0x00"),
        (lambda t: Tokenizer(t.mergeable_ranks, special_tokens={"<|x|>": 7}), "its own"),
    ],
)
def test_bad_input_is_a_value_error_that_says_what_came(call, says):
    with pytest.raises(ValueError) as caught:
        call(TOKENIZER)
    assert says in str(caught.value)


def test_a_tokenizer_is_its_three_fields():
    again = Tokenizer(TOKENIZER.mergeable_ranks, TOKENIZER.pattern, TOKENIZER.special_tokens)
    assert again == TOKENIZER and hash(again) == hash(TOKENIZER)
    assert Tokenizer(TOKENIZER.mergeable_ranks) == TOKENIZER
    assert pickle.loads(pickle.dumps(TOKENIZER)) == TOKENIZER
    assert Tokenizer(TOKENIZER.mergeable_ranks, r"\w+|\W+") != TOKENIZER


def test_merges_rebuild_every_token():
    tokens = list(TOKENIZER.mergeable_ranks)
    merges = TOKENIZER.merges()
    assert [tokens[a] + tokens[b] for a, b in merges] == tokens[256:]
