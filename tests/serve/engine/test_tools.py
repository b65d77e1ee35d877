"""Tools: a second one is a function and its name in a tuple; what the calculator takes."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nanochat_jax.serve.engine import Engine, tools
from nanochat_jax.serve.engine.calculator import use_calculator
from nanochat_jax.serve.engine.text import ReplyReader, join_parts
from nanochat_jax.tokenizer.chat_format import ASSISTANT_END, Message, encode_message, parse, render
from tests.serve.world import BYTES, scripted_model

EXCHANGE = [
    {"type": "text", "text": "Twice: "},
    {"type": "python", "text": "6*7"},
    {"type": "python_output", "text": "42"},
    {"type": "python", "text": "len('ox')"},
    {"type": "python_output", "text": "2"},
    {"type": "text", "text": "!"},
]


def count_letters(call: str) -> int | None:
    """A tool of another kind than the calculator: `len('...')`."""
    found = re.fullmatch(r"len\('(\w*)'\)", call)
    return len(found[1]) if found else None


def test_a_second_tool_is_a_function_and_one_line(monkeypatch):
    """Engine, encoder, both parsers and training's mask agree on a reply that calls two tools."""
    monkeypatch.setattr(tools, "TOOLS", (*tools.TOOLS, count_letters))
    ids, mask = encode_message(BYTES, Message("assistant", EXCHANGE))
    written = [token if sampled else 0 for token, sampled in zip(ids[1:], mask[1:], strict=True)]
    end = BYTES.encode_special(ASSISTANT_END)
    model = scripted_model([written], 2, 265, end)
    (reply,) = Engine(model, BYTES, slots=1, steps=4).complete([[256, 1]], 100)
    # What the tools wrote is what training leaves out of the loss, token by token.
    assert reply.tokens == ids[1:-1] and reply.masks == mask[1:-1]
    reader = ReplyReader(BYTES)
    pieces = [piece for token in reply.tokens for piece in reader.push(token)] + reader.finish()
    assert join_parts(pieces) == EXCHANGE
    assert [{"type": k, "text": t} for k, t in parse(BYTES.decode(reply.tokens))] == EXCHANGE
    messages = [{"role": "user", "content": "?"}, {"role": "assistant", "content": EXCHANGE}]
    assert render(BYTES, {"messages": messages}, 1000)[0][-len(ids) :] == ids


def test_the_first_tool_with_a_result_answers_and_none_is_no_answer(monkeypatch):
    monkeypatch.setattr(tools, "TOOLS", (count_letters, use_calculator, lambda call: "last"))
    assert [tools.run_tool(call) for call in ("len('ox')", "1+1", "x")] == ["2", "2", "last"]
    monkeypatch.setattr(tools, "TOOLS", (use_calculator,))
    assert tools.run_tool("len('ox')") is None and tools.run_tool("1-1") == "0"


@given(st.integers(0, 10**6), st.integers(0, 10**6), st.sampled_from("+-*"))
def test_arithmetic_agrees_with_python(a, b, op):
    expected = {"+": a + b, "-": a - b, "*": a * b}[op]
    assert use_calculator(f"{a}{op}{b}") == expected
    assert use_calculator(f"({a:,} {op} {b:,})") == expected


@given(st.text("abc '\"()._count0123456789+-*/,", max_size=40))
def test_no_text_makes_it_raise(text):
    use_calculator(text)


@pytest.mark.parametrize(
    "expression",
    ["(" * 3000 + "1", "1+" * 5000 + "1", "-" * 5000 + "1", "9" * 5000, "9" * 400 + "/3", "2(3)"],
)
def test_what_has_no_value_is_none(expression):
    assert use_calculator(expression) is None


def test_letters_are_counted_after_harmless_methods():
    assert use_calculator("'Strawberry'.lower().count('r')") == 3
    assert use_calculator("'abc'.format('a').count('b')") is None


def test_nothing_but_text_and_numbers_can_be_reached():
    assert use_calculator("''.class.count('a')") is None
    assert use_calculator("('a').count(''.join)") is None
