"""Replies in a terminal: words stay whole at any width, marks become styles, nothing is lost."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.cells import cell_len

from nanochat_jax.serve.typeset import Typesetter
from nanochat_jax.tokenizer.chat_format import Part

FAMILY = "👨\u200d👩\u200d👧"
MARKED = (
    "**Bold** and `code x`, 2**3**4 * a.\n# Head **x**\n- a\n```py\nx =  1\n```\n~~~\n**y**\n~~~"
)
texts = st.text(st.sampled_from("ab c\n東。*`#- 1.é👍"), max_size=80) | st.text(max_size=40)


def laid(text, width=20, *, styled=False, column=0, step=1, kind="text"):
    """The reply as it is written, in pieces of `step` characters."""
    setter = Typesetter(width and (lambda: width), styled, column)
    pieces = (Part(kind, text[i : i + step]) for i in range(0, len(text), step))
    return "".join(map(setter.push, pieces)) + setter.end()


@pytest.mark.parametrize("width", [8, 13, 20, 40, 200])
def test_no_word_is_cut_and_no_line_is_wider_than_the_terminal(width):
    text = "The quick brown fox jumps over the lazy dog, and the dog sleeps on."
    lines = laid(text, width).split("\n")
    assert " ".join(lines) == text and max(map(len, lines)) <= width
    assert all(
        len(a) + 1 + len(b.split()[0]) > width for a, b in zip(lines, lines[1:], strict=False)
    )


def test_the_first_line_begins_where_the_cursor_is():
    assert laid("Rosa has books", 16, column=11) == "Rosa\nhas books"


def test_wide_characters_count_twice_and_lines_break_between_them_as_in_print():
    text = "東京は日本の首都です。人口は約千四百万人で、世界最大です。"
    lines = laid(text, 16).split("\n")
    assert "".join(lines) == text and max(map(cell_len, lines)) <= 16
    assert min(map(cell_len, lines[:-1])) >= 12 and not any(x[0] in "。、" for x in lines)


def test_what_is_one_character_to_a_reader_stays_whole():
    for one in (FAMILY, "👍🏽", "🇩🇪", "e\u0301", "❤\ufe0f"):
        for line in laid(one * 12, 10).split("\n"):
            assert line.count(one) * len(one) == len(line)
            assert cell_len(line) <= 10 or one not in (FAMILY, "👍🏽")


@pytest.mark.parametrize("styled", [False, True])
def test_what_has_no_width_or_another_blank_is_written_as_it_came(styled):
    joined, blanks = "می\u200cروم", ("10\u00a0km", "Bonjour\u202f!", "東京\u3000大阪")
    for text in (joined, *blanks, "Donau\u00addampf", "\U0001fae9", FAMILY, "\u2067עברית\u2069"):
        assert laid(text, 80, styled=styled).removesuffix("\x1b[0m") == text


def test_a_word_wider_than_the_terminal_is_left_to_it_and_comes_while_it_is_written():
    address = "https://example.org/" + "a" * 40
    assert laid(f"see {address} ok then", 16) == f"see\n{address} ok\nthen"
    setter = Typesetter(lambda: 16)
    assert len(setter.push(Part("text", "a" * 100))) > 80


def test_list_items_hang_under_their_first_word_and_indents_stay():
    assert laid("- one two three\n  10. four five\n    six", 14) == (
        "- one two\n  three\n  10. four\n      five\n    six"
    )


def test_each_word_asks_for_the_width_anew():
    widths = iter([40, 40, 40, 6])
    setter = Typesetter(lambda: next(widths, 6))
    assert setter.push(Part("text", "aaa bbb ccc ddd ")) + setter.end() != "aaa bbb ccc ddd"


@settings(max_examples=150, deadline=None)
@given(texts, st.integers(1, 30), st.booleans(), st.integers(1, 9))
def test_nothing_but_blanks_marks_and_line_ends_differs_wherever_pieces_end(
    text, width, styled, step
):
    whole = laid(text, width, styled=styled, step=len(text) or 1)
    assert laid(text, width, styled=styled, step=step) == whole
    bare = lambda s: re.sub(r"[\s*`]", "", re.sub(r"\x1b\[[0-9;]*m", "", s))
    if "\x1b" not in text:
        assert bare(whole) == bare(text)


def test_marks_become_styles():
    assert laid(MARKED, 60, styled=True) == (
        "\x1b[0;1mBold \x1b[0mand \x1b[0;36mcode x\x1b[0m, 2**3**4 * a.\n\x1b[0;1m# Head **x**\n"
        "\x1b[0m- a\n\x1b[0;2m```py\n\x1b[0;36mx =  1\n\x1b[0;2m```\n~~~\n\x1b[0;36m**y**\n"
        "\x1b[0;2m~~~\x1b[0m"
    )


def test_without_colours_marks_stay_and_without_a_terminal_all_stays():
    assert laid(MARKED, 60) == laid(MARKED, None) == MARKED.replace("=  1", "=  1")
    long = "word " * 100
    assert laid(long, None) == long


@pytest.mark.parametrize("text", ["a ** b", "2**3", "a * b * c", "5 `", "**", "*", "``` x", "#no"])
def test_what_is_no_mark_is_text(text):
    assert re.sub(r"\x1b\[[0-9;]*m", "", laid(text, 60, styled=True)) == text


def test_a_mark_whose_end_does_not_come_is_not_waited_for_for_ever():
    setter = Typesetter(lambda: 80, True)
    assert "word" in setter.push(Part("text", "**bold " + "word " * 60))


def test_tool_calls_stand_in_brackets_also_two_in_a_row_and_one_that_was_cut():
    setter = Typesetter()
    parts = [("text", "A "), ("python", "1+1"), ("python_output", "2"), ("python", "2+2"),
             ("python_output", "4"), ("text", "B"), ("python", "3+")]  # fmt: skip
    out = "".join(setter.push(Part(*part)) for part in parts) + setter.end()
    assert out == "A [1+1=2] [2+2=4] B[3+]"
