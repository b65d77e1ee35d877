"""Training is textbook byte-pair encoding, whatever way it is arranged inside."""

import collections
import re
import signal
import subprocess
import sys
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nanochat_jax import _rustbpe
from nanochat_jax.tokenizer import SPECIAL_TOKENS, Tokenizer

WORDS = r"\w+|\s+|[^\w\s]+"

# Few letters: pairs repeat, overlap and tie.
TEXTS = st.lists(st.text(alphabet="ab é.", max_size=20), max_size=8)


def oracle(texts: list[str], vocab_size: int, pattern: str) -> list[tuple[int, int]]:
    """The textbook procedure: count every pair anew, take the best, replace, again."""
    counts = collections.Counter(chunk for text in texts for chunk in re.findall(pattern, text))
    words = [(list(chunk.encode("utf-8")), n) for chunk, n in counts.items()]
    merges = []
    while len(merges) < vocab_size - 256:
        pairs = collections.Counter()
        for ids, n in words:
            for pair in zip(ids, ids[1:], strict=False):
                pairs[pair] += n
        if not pairs:
            break
        best = min(pairs, key=lambda pair: (-pairs[pair], pair))
        words = [(_replace(ids, best, 256 + len(merges)), n) for ids, n in words]
        merges.append(best)
    return merges


def _replace(ids: list[int], pair: tuple[int, int], new: int) -> list[int]:
    out, i = [], 0
    while i < len(ids):
        found = tuple(ids[i : i + 2]) == pair
        out.append(new if found else ids[i])
        i += 2 if found else 1
    return out


@given(TEXTS, st.integers(256, 300))
def test_merges_are_those_of_the_slow_oracle(texts, vocab_size):
    assert _rustbpe.train(iter(texts), vocab_size, WORDS) == oracle(texts, vocab_size, WORDS)


@given(TEXTS)
def test_the_order_of_the_texts_does_not_matter(texts):
    assert _rustbpe.train(texts, 280, WORDS) == _rustbpe.train(texts[::-1], 280, WORDS)


def test_many_buffers_count_as_one():
    texts = [f"word{i % 700} and {i % 31}" for i in range(20_000)]
    assert _rustbpe.train(iter(texts), 400, WORDS) == oracle(texts, 400, WORDS)


def test_the_documented_example_gives_the_documented_tokens():
    # Computed with the original's code: nanochat-classic, two strings three times over, V = 277.
    texts = [
        "the cat sat on the mat. the cat ate the rat!\n",
        "2025 was 12 times 168.75 more\n\n  indented",
    ]
    tokenizer = Tokenizer.train(texts * 3, 277)
    learnt = list(tokenizer.mergeable_ranks)[256:]
    expected = ["at", " t", "he", " the", " c", " m", " cat", "\n\n", " i", " o", " r", " s"]
    assert learnt == [token.encode() for token in expected]
    assert tokenizer.get_bos_token_id() == 268
    assert tokenizer.encode_special("<|output_end|>") == 276
    assert tokenizer.encode("the cat 2025!") == [116, 258, 262, 32, 50, 48, 50, 53, 33]
    assert tokenizer.encode("<|bos|>") == [60, 124, 98, 111, 115, 124, 62]


def test_texts_without_enough_pairs_give_a_smaller_vocabulary_and_a_warning(caplog):
    tokenizer = Tokenizer.train(["ab"], 1000)
    assert tokenizer.get_vocab_size() == 256 + 1 + len(SPECIAL_TOKENS)
    assert "266 ids" in caplog.text


def test_half_a_surrogate_pair_is_trained_on_as_the_replacement_character():
    broken, mended = ["x\ud800y" * 3], ["x\ufffdy" * 3]
    assert _rustbpe.train(broken, 300, WORDS) == _rustbpe.train(mended, 300, WORDS)


@pytest.mark.parametrize(
    ("texts", "vocab_size", "pattern", "says"),
    [
        (["a"], 264, WORDS, "265 or more"),
        (["a", 7], 300, WORDS, "text 1 is int"),
        ("a long text", 300, WORDS, r"\[text\]"),
        (["a"], 300, "(", "not a regular expression"),
    ],
)
def test_bad_input_is_answered_with_what_to_do(texts, vocab_size, pattern, says):
    with pytest.raises(ValueError, match=says):
        Tokenizer.train(texts, vocab_size, pattern)


def test_an_error_of_the_iterator_comes_through():
    def texts():
        yield "fine"
        raise OSError("disk gone")

    with pytest.raises(OSError, match="disk gone"):
        Tokenizer.train(texts(), 300)


ENDLESS = """
import itertools
from nanochat_jax.tokenizer import Tokenizer
print("started", flush=True)
Tokenizer.train((f"text number {i}" for i in itertools.count()), 1000)
"""


def test_ctrl_c_interrupts_training():
    process = subprocess.Popen(
        [sys.executable, "-c", ENDLESS], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "started\n"
    time.sleep(0.3)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=20)
    assert "KeyboardInterrupt" in errors
