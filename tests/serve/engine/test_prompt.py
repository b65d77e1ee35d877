import pytest

from nanochat_jax.serve.engine.prompt import ContextFull, fit_conversation
from nanochat_jax.tokenizer.chat_format import Message
from tests.serve.world import BYTES


def user(text):
    return Message("user", text)


def assistant(text):
    return Message("assistant", text)


def fit(messages, context=1000, reserve=0, **more):
    prompt = fit_conversation(BYTES, messages, context, reserve, **more)
    return BYTES.decode(prompt.tokens), prompt.dropped


def test_the_prompt_is_what_training_renders():
    conversation = [user("hi"), assistant("yes"), user("so?"), assistant("")]
    messages = [{"role": m.role, "content": m.content} for m in conversation]
    tokens = fit_conversation(BYTES, conversation[:3], 1000, 0).tokens
    assert tokens == BYTES.render_for_completion({"messages": messages})


def test_system_text_goes_in_front_of_the_first_user_message():
    messages = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "hi"}]
    expected = BYTES.render_for_completion(
        {"messages": [*messages, {"role": "assistant", "content": ""}]}
    )
    assert fit([Message("system", "Be kind."), user("hi")])[0] == BYTES.decode(expected)


def test_the_oldest_whole_turns_go_and_the_system_text_stays():
    turns = [m for i in range(5) for m in (user(f"question {i}"), assistant(f"answer {i}"))]
    messages = [Message("system", "Sys"), *turns, user("last")]
    text, dropped = fit(messages, context=60)
    assert dropped == 6 and "question 2" not in text
    assert text.startswith("<|bos|><|user_start|>Sys\n\nquestion 3<|user_end|>")
    assert len(fit_conversation(BYTES, messages, 60, 10).tokens) + 10 <= 60


def test_the_last_turn_stays_even_without_room_for_the_reserve():
    text, dropped = fit([user("a" * 10), assistant("b"), user("c" * 50)], context=60, reserve=30)
    assert dropped == 2 and "c" * 50 in text


def test_a_last_message_beyond_the_context_is_refused_with_its_size():
    with pytest.raises(ContextFull, match="104 tokens .* context is 100"):
        fit([user("a" * 100)], context=100)


def test_tool_calls_of_a_reply_become_their_tokens_again():
    parts = [
        {"type": "text", "text": "so "},
        {"type": "python", "text": "1+1"},
        {"type": "python_output", "text": "2"},
    ]
    text, _ = fit([user("?"), assistant(parts), user("ok")])
    block = "so <|python_start|>1+1<|python_end|><|output_start|>2<|output_end|><|assistant_end|>"
    assert block in text


def test_special_tokens_in_a_message_stay_plain_text():
    tokens = fit_conversation(BYTES, [user("<|assistant_end|>")], 100, 0).tokens
    assert BYTES.encode_special("<|assistant_end|>") not in tokens


@pytest.mark.parametrize(
    "messages, expected",
    [
        ([Message("system", "a")], "<|user_start|>a<|user_end|>"),
        ([Message("system", "a"), Message("system", "b"), user("c")], "<|user_start|>a\n\nb\n\nc"),
        ([user("a"), assistant("b"), Message("system", "s"), user("c")], "<|user_start|>s\n\nc"),
        ([user("a"), assistant("b"), Message("system", "s")], "<|user_start|>s<|user_end|>"),
        ([assistant("b"), user("c")], "<|bos|><|assistant_start|>b<|assistant_end|>"),
        ([Message("system", "s"), assistant("b")], "<|bos|><|user_start|>s<|user_end|>"),
        ([user("a"), user("b")], "<|user_start|>a<|user_end|><|user_start|>b<|user_end|>"),
    ],
)
def test_unusual_orders_of_roles_lose_nothing(messages, expected):
    text, dropped = fit(messages)
    assert expected in text and dropped == 0
    assert all(message.content in text for message in messages)


@pytest.mark.parametrize(
    "reply, end",
    [
        ("It is", "<|assistant_start|>It is"),
        ("", "<|assistant_start|>"),
        ([{"type": "python", "text": "1+"}], "<|assistant_start|><|python_start|>1+"),
        (
            [{"type": "python", "text": "1+1"}, {"type": "python_output", "text": "2"}],
            "<|python_end|><|output_start|>2<|output_end|>",
        ),
    ],
)
def test_a_reply_that_was_cut_is_left_open_for_more(reply, end):
    text, _ = fit([user("a"), assistant("b"), user("?"), assistant(reply)], go_on=True)
    assert text.endswith(end) and "b<|assistant_end|><|user_start|>?<|user_end|>" in text
