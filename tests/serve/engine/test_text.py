from hypothesis import given
from hypothesis import strategies as st

from nanochat_jax.serve.engine.text import ReplyReader, StopGuard, join_parts
from nanochat_jax.tokenizer.chat_format import Part
from tests.serve.world import BYTES


def read(ids, **options):
    reader = ReplyReader(BYTES, **options)
    return [piece for token in ids for piece in reader.push(token)] + reader.finish()


@given(st.text())
def test_pieces_join_to_the_text_and_none_holds_half_a_character(text):
    pieces = read(BYTES.encode(text))
    assert "".join(piece.text for piece in pieces) == BYTES.decode(BYTES.encode(text))
    assert all("\ufffd" not in piece.text for piece in pieces) or "\ufffd" in text


@given(st.binary(max_size=30))
def test_bytes_that_are_no_text_are_replaced_as_python_does(raw):
    assert "".join(piece.text for piece in read(raw)) == raw.decode("utf-8", "replace")


@given(st.text("ab", max_size=30), st.lists(st.text("ab", min_size=1, max_size=4), max_size=3))
def test_a_stop_string_cuts_where_it_first_occurs_however_the_text_comes(text, stops):
    guard = StopGuard(stops)
    shown = "".join("" if guard.stopped else guard.push(char) for char in text)
    shown += "" if guard.stopped else guard.flush()
    ends = [text.find(stop) + len(stop) for stop in stops if stop in text]
    if not ends:
        assert shown == text and not guard.stopped
    else:
        # Text comes by characters, so the stop string that is complete first counts.
        first = min(ends)
        cut = [stop for stop in stops if text[:first].endswith(stop)]
        assert shown == text[: first - max(map(len, cut))] and guard.stopped


def test_tool_calls_are_pieces_of_their_own():
    special = BYTES.encode_special
    ids = [
        *BYTES.encode("a "),
        special("<|python_start|>"),
        *BYTES.encode("1+1"),
        special("<|python_end|>"),
        special("<|output_start|>"),
        *BYTES.encode("2"),
        special("<|output_end|>"),
        *BYTES.encode(" b"),
    ]
    parts = join_parts(read(ids))
    assert parts == [
        {"type": "text", "text": "a "},
        {"type": "python", "text": "1+1"},
        {"type": "python_output", "text": "2"},
        {"type": "text", "text": " b"},
    ]


def test_other_special_tokens_have_no_text():
    ids = [BYTES.encode_special("<|user_start|>"), *BYTES.encode("x"), BYTES.get_bos_token_id()]
    assert read(ids) == [Part("text", "x")]
    assert read([BYTES.encode_special("<|python_start|>"), 65], raw=True) == [Part("text", "A")]


def test_a_half_character_before_a_tool_call_is_replaced_not_lost():
    ids = [0xE2, BYTES.encode_special("<|python_start|>"), 65]
    assert read(ids) == [Part("text", "\ufffd"), Part("python", "A")]
