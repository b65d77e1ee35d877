"""Files that people write: marks, line ends, gzip and damage, in the one place that reads them."""

import gzip

import pytest

from nanochat_jax import texts
from nanochat_jax.config.resolve import read_toml
from nanochat_jax.identity.facts import Fact, read_identity
from nanochat_jax.tasks.hub import words

MARK = b"\xef\xbb\xbf"


def lines_of(path, content):
    path.write_bytes(content)
    return list(texts.read_lines(path))


@pytest.mark.parametrize("odd", "\u2028 \u2029 \x85 \x0b \x0c \x1c \x1d \x1e".split(" "))
def test_a_line_ends_at_a_line_feed_alone(tmp_path, odd):
    found = lines_of(tmp_path / "a", f"one{odd}two\r\nthree\n\nfour".encode())
    assert found == [f"one{odd}two", "three", "", "four"]


def test_marks_are_taken_off_also_where_files_were_joined(tmp_path):
    assert lines_of(tmp_path / "a", MARK + b"a\r\n" + MARK + b"b\r\n") == ["a", "b"]
    assert texts.read_text(tmp_path / "a") == "a\nb\n"


@pytest.mark.parametrize("name", ["A.TXT.GZ", "a.txt.gz"])
def test_a_gzipped_file_is_known_by_its_ending_in_capitals_too(tmp_path, name):
    path = tmp_path / name
    path.write_bytes(gzip.compress(MARK + b"a\rb\r\nc"))
    assert texts.read_text(path) == "a\nb\nc" and texts.ending(path) == ".txt"


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"good\n" * 5000 + b"caf\xe9\n", "line 5001: not UTF-8"),
        (b"good\n\xed\xa0\xbd\n", "line 2: not UTF-8"),  # half a character, as UTF-8 never has it
        ("text".encode("utf-16"), "save it as UTF-8"),
    ],
)
def test_what_is_no_utf_8_is_said_with_its_line(tmp_path, content, reason):
    with pytest.raises(ValueError, match=reason):
        lines_of(tmp_path / "a", content)


def test_zero_bytes_are_no_text(tmp_path):
    (tmp_path / "a").write_bytes("text".encode("utf-16-le"))
    with pytest.raises(ValueError, match="zero bytes"):
        texts.read_text(tmp_path / "a")


def test_a_line_without_an_end_is_not_held(tmp_path, monkeypatch):
    monkeypatch.setattr(texts, "LONGEST_LINE", 10)
    assert lines_of(tmp_path / "a", b"123456789\n123456789\n") == ["123456789"] * 2
    with pytest.raises(ValueError, match="line 1 has more than 10 bytes"):
        lines_of(tmp_path / "a", b"1234567890\n")


def test_config_facts_and_words_with_a_mark_are_read(tmp_path):
    for name, content in (("c.toml", b"depth = 2\r\n"), ("f", b"creator: Ada\r\n"),
                          ("words_alpha.txt", b"apple\r\nbanana\r\n")):  # fmt: skip
        (tmp_path / name).write_bytes(MARK + content)
    assert read_toml(tmp_path / "c.toml") == {"depth": 2}
    assert read_identity("Nemo", tmp_path / "f").facts == (Fact("creator", "Ada"),)
    assert words(tmp_path) == ["apple", "banana"]


def test_a_list_without_a_word_is_named(tmp_path):
    (tmp_path / "words_alpha.txt").write_bytes(MARK + b"\r\n")
    with pytest.raises(ValueError, match="words_alpha.txt holds no word"):
        words(tmp_path)
