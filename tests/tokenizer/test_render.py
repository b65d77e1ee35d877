"""Conversations become ids and a mask by the original's rules, and bad ones are explained."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nanochat_jax.tokenizer import ConversationError, Tokenizer
from nanochat_jax.tokenizer.chat_format import PARTS, Message, Part, encode_message, parse

TOKENIZER = Tokenizer.train(
    [
        "the cat sat on the mat. the cat ate the rat!\n",
        "2025 was 12 times 168.75 more\n\n  indented",
    ]
    * 3,
    277,
)
USER = {"role": "user", "content": "the cat"}
ASSISTANT = {"role": "assistant", "content": "sat"}
TOOL_USE = {
    "messages": [
        {"role": "system", "content": "S"},
        USER,
        {
            "role": "assistant",
            "content": [
                {"type": "text", "text": "a"},
                {"type": "python", "text": "1+1"},
                {"type": "python_output", "text": "2"},
                {"type": "text", "text": ""},
            ],
        },
    ]
}
# Computed with the original's code on the same two training strings.
IDS = [268, 269, 83, 263, 116, 258, 262, 270, 271, 97, 273, 49, 43, 49, 274, 275, 50, 276, 272]
MASK = [0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 0, 0, 0, 1]


def test_a_conversation_with_a_tool_has_the_documented_ids_and_mask():
    assert TOKENIZER.render_conversation(TOOL_USE) == (IDS, MASK)
    assert TOKENIZER.render_for_completion(TOOL_USE) == IDS[:9]


def test_rendering_leaves_the_conversation_as_it_was():
    before = repr(TOOL_USE)
    TOKENIZER.render_conversation(TOOL_USE)
    TOKENIZER.render_for_completion(TOOL_USE)
    assert repr(TOOL_USE) == before


@pytest.mark.parametrize("limit", [0, 1, 5, 18, 19, 20])
def test_max_tokens_cuts_ids_and_mask_alike(limit):
    ids, mask = TOKENIZER.render_conversation(TOOL_USE, max_tokens=limit)
    assert (ids, mask) == (IDS[:limit], MASK[:limit])


def test_a_long_prompt_is_cut_before_the_assistant_start():
    long = {"messages": [{"role": "user", "content": "x" * 3000}, ASSISTANT]}
    ids = TOKENIZER.render_for_completion(long)
    assert len(ids) == 2049 and ids[-1] == TOKENIZER.encode_special("<|assistant_start|>")


CONTENTS = st.lists(st.text(max_size=10), min_size=1, max_size=6)


@given(CONTENTS)
def test_the_supervised_tokens_are_the_assistant_s_words_and_its_end(contents):
    roles = ("user", "assistant")
    messages = [{"role": roles[i % 2], "content": c} for i, c in enumerate(contents)]
    ids, mask = TOKENIZER.render_conversation({"messages": messages})
    supervised = TOKENIZER.decode([i for i, m in zip(ids, mask, strict=True) if m])
    assert supervised == "".join(c + "<|assistant_end|>" for c in contents[1::2])


@given(st.lists(st.builds(Part, st.sampled_from([*PARTS]), st.text(max_size=8)), max_size=6))
def test_a_rendered_answer_parses_back_to_its_parts(parts):
    content = [{"type": part.kind, "text": part.text} for part in parts]
    ids, _ = encode_message(TOKENIZER, Message("assistant", content))
    assert _merged(parse(TOKENIZER.decode(ids[1:-1]))) == _merged(parts)


def _merged(parts):
    """Neighbouring texts as one: no marker stands between them."""
    kept = []
    for kind, text in parts:
        if kind == "text" and kept and kept[-1].kind == "text":
            text = kept.pop().text + text
        kept += [Part(kind, text)] if text or kind != "text" else []
    return kept


def test_a_call_that_does_not_end_stays_text():
    for text in ("<|python_start|>1+1", "1<|python_end|>", "<|output_start|>2<|python_end|>"):
        assert parse(text) == [Part("text", text)]
    assert parse("") == []


def test_all_of_a_raw_text_but_bos_is_supervised():
    ids, mask = TOKENIZER.render({"text": "the rat"})
    assert ids == [268, *TOKENIZER.encode("the rat")]
    assert mask == [0] + [1] * (len(ids) - 1)
    assert TOKENIZER.render({"text": "the rat"}, max_tokens=2) == (ids[:2], [0, 1])
    assert TOKENIZER.render(TOOL_USE, max_tokens=7) == (IDS[:7], MASK[:7])


def test_supervised_tokens_are_shown_green():
    shown = TOKENIZER.visualize_tokenization([262, 97], [0, 1], with_token_id=True)
    assert shown == "\033[91m cat\033[0m|\033[90m(262)\033[0m|\033[92ma\033[0m|\033[90m(97)\033[0m"
    assert TOKENIZER.visualize_tokenization([97], [1]) == "\033[92ma\033[0m"


@pytest.mark.parametrize(
    ("messages", "says"),
    [
        ([], "at least 1 message of user and assistant, got []"),
        (None, "expected {"),
        (["hello"], "message 0: no 'role' in 'hello'"),
        ([{"role": "user"}], "message 0: no 'content'"),
        ([ASSISTANT], "message 0: expected the role user, got 'assistant'"),
        ([USER, ASSISTANT, ASSISTANT], "message 2: expected the role user"),
        ([{"role": "system", "content": "S"}], "at least 1 message of user and assistant"),
        (
            [{"role": "system", "content": "S"}, USER, USER],
            "message 2: expected the role assistant",
        ),
        ([{"role": "system", "content": 1}, USER], "message 0: the system's content must be a str"),
        ([{"role": "user", "content": []}], "must be a str, got list"),
        ([USER, {"role": "assistant", "content": 5}], "must be a str or a list of parts, got int"),
        ([USER, {"role": "assistant", "content": ["x"]}], "message 1, part 0: expected a type"),
        ([USER, {"role": "assistant", "content": [{"type": "text"}]}], "part 0: expected a type"),
        (
            [USER, {"role": "assistant", "content": [{"type": "image", "text": "x"}]}],
            "(text, python, python_output)",
        ),
    ],
)
def test_what_cannot_be_rendered_is_explained(messages, says):
    bad = {"messages": messages}
    with pytest.raises(ConversationError) as caught:
        TOKENIZER.render_conversation(bad)
    assert says in str(caught.value)


def test_only_an_assistants_message_can_be_written_anew():
    for messages in ([USER], [USER, ASSISTANT, USER], []):
        with pytest.raises(ConversationError, match="must be the assistant's"):
            TOKENIZER.render_for_completion({"messages": messages})
