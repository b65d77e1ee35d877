"""What a terminal shows of a reply, and what it hears of a person."""

import pytest

from nanochat_jax.serve.screen import Screen, heard


def shown(*pieces):
    screen = Screen()
    return "".join(map(screen.shown, pieces)) + screen.end()


@pytest.mark.parametrize(
    "steering",
    ["\x1b[2J", "\x9b2J", "\x07", "\x08", "\x7f", "\x00", "\x85", "\u202d", "\u202e", "\ud800"],
)
def test_what_would_steer_a_terminal_is_replaced(steering):
    assert shown(f"a{steering}b") == "a\ufffd" + steering[1:] + "b"


@pytest.mark.parametrize(
    "text",
    [
        "👨\u200d👩\u200d👧",  # joined emoji
        "می\u200cروم",  # a non-joiner
        "10\u00a0km, Bonjour\u202f!",
        "東京\u3000大阪",
        "Donau\u00addampf",
        "\U0001fae9\U0001facd",  # newer than Python's tables
        "🏴\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f",  # tags
        "\u2067עברית\u2069 \u061c\u200e\u200f",  # isolates and marks
        "\ufeffa\u2060b\ufe0f\ue000\u2028c",
        "\ta\n\nb",
    ],
)
def test_text_that_steers_nothing_is_shown_as_it_is(text):
    assert shown(text) == shown(*text) == text


def test_every_line_end_is_one_wherever_pieces_end_and_writes_over_nothing():
    text = "a\r\nb\rc\r\n\r\nd\r"
    assert shown(text) == shown(*text) == "a\nb\nc\n\nd\n"


@pytest.mark.parametrize(
    "raw, text",
    [
        (b"caf\xe9?", "caf\ufffd?"),
        ("你".encode()[:2] + b"!", "\ufffd!"),
        (b"\xff\xfe", "\ufffd\ufffd"),
        (b"\xed\xa0\x80", "\ufffd\ufffd\ufffd"),  # half a surrogate pair
        (b"\xef\xbb\xbfhi", "hi"),
        ("Grüße 🙂".encode(), "Grüße 🙂"),
    ],
)
def test_bytes_that_are_no_utf_8_are_heard_as_replacement_characters(raw, text):
    assert heard(raw.decode("utf-8", "surrogateescape")) == text
