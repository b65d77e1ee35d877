"""The tool machine alone: what a row's tokens make of it, without a model."""

import pytest

from nanochat_jax.serve.engine.tool_calls import ToolCalls
from tests.serve.world import BYTES

START, END, OUT, BACK = map(
    BYTES.encode_special,
    ("<|python_start|>", "<|python_end|>", "<|output_start|>", "<|output_end|>"),
)
ASSISTANT = BYTES.encode_special("<|assistant_start|>")


def upper(text):
    return text.upper() if text != "no" else None


def follow(calls, tokens):
    return [calls.follow(token) for token in tokens]


def test_a_result_is_forced_between_markers_and_counts_as_not_sampled():
    calls = ToolCalls(BYTES, upper)
    assert follow(calls, [*b"x", START, *b"ab"]) == [True] * 4 and calls.in_call
    assert calls.follow(END) and not calls.in_call
    forced = [OUT, *b"AB", BACK]
    assert calls.forced(2) == forced[:2] and calls.forced(9) == forced
    assert follow(calls, forced) == [False] * 4
    assert calls.forced(9) == [] and calls.follow(65)


@pytest.mark.parametrize("tokens", [[START, END], [*b"ab", END], [START, *b"no", END]])
def test_an_empty_call_a_stray_end_and_a_call_without_a_result_force_nothing(tokens):
    calls = ToolCalls(BYTES, upper)
    assert all(follow(calls, tokens))
    assert calls.forced(9) == [] and not calls.in_call


def test_a_call_that_starts_anew_drops_what_stood_before():
    calls = ToolCalls(BYTES, upper)
    follow(calls, [START, *b"a", START, *b"b", END])
    assert calls.forced(9) == [OUT, *b"B", BACK]


def test_a_prompt_may_end_within_a_call_but_only_of_its_last_message():
    within = ToolCalls(BYTES, upper, [ASSISTANT, START, *b"a"])
    assert within.in_call
    follow(within, [*b"b", END])
    assert within.forced(9) == [OUT, *b"AB", BACK]
    for ended in ([START, *b"a", END, *b"b"], [START, *b"a", ASSISTANT]):
        assert not ToolCalls(BYTES, upper, ended).in_call
