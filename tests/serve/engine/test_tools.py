import pytest
from hypothesis import given
from hypothesis import strategies as st

from nanochat_jax.serve.engine.tools import use_calculator


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
