"""Exchanges: first questions of conversations, scored by the words of their own answers."""

import json

import pytest

from nanochat_jax import tasks
from nanochat_jax.tasks import exchanges

TURN = lambda role, content: {"role": role, "content": content}
CALL = lambda text, output: [
    {"type": "python", "text": text},
    {"type": "python_output", "text": output},
    {"type": "text", "text": f"That makes {output}."},
]
SUM = [TURN("user", "2+3?"), TURN("assistant", CALL("2+3", "5"))]
COUNT = [TURN("user", "l in hill?"), TURN("assistant", CALL("'hill'.count('l')", "2"))]
SPELL = [TURN("user", "Spell ox."), TURN("assistant", "It is spelled o x.")]
TALK = [TURN("user", "Hello!"), TURN("assistant", "Hello! Ask me.")]
ALONE = [TURN("user", "Spell ox."), TURN("assistant", "o x")]
TWICE = [TURN("system", "Be brief."), *ALONE, *SUM]


@pytest.mark.parametrize(
    ("kind", "questions"),
    [
        ("", ["2+3?", "l in hill?", "Spell ox.", "Hello!", "Spell ox."]),
        ("sums", ["2+3?"]),
        ("counts", ["l in hill?"]),
        ("spelling", ["Spell ox.", "Spell ox."]),
    ],
)
def test_a_kind_has_its_first_questions_alone(kind, questions):
    task = exchanges.task([SUM, COUNT, SPELL, TALK, TWICE], kind)
    assert [task[i]["messages"][-2]["content"] for i in range(len(task))] == questions
    assert all(task[i]["messages"][-1]["role"] == "assistant" for i in range(len(task)))


@pytest.mark.parametrize(
    ("reply", "right"),
    [
        ("<|python_start|>2+3<|python_end|><|output_start|>5<|output_end|>That makes 5.", 1.0),
        ("<|python_start|>2 + 3<|python_end|><|output_start|>5<|output_end|>That makes 5.\n", 1.0),
        ("<|python_start|>9-4<|python_end|><|output_start|>5<|output_end|>That makes 5.", 0.0),
        ("<|python_start|>2+'<|python_end|><|output_start|>5<|output_end|>That makes 5.", 0.0),
        ("That makes 5.", 0.0),
        ("That makes 6.", 0.0),
        ("That makes 5. That makes 5.", 0.0),
        ("<|python_start|>2+3", 0.0),
        ("", 0.0),
    ],
)
def test_a_reply_is_right_with_the_words_and_the_calls_of_the_answer(reply, right):
    assert exchanges.task([SUM]).reward({"messages": SUM}, reply) == right


def test_exchanges_are_named_as_other_tasks(tmp_path):
    folder = tmp_path / "conversations"
    folder.mkdir()
    lines = "".join(json.dumps(chat) + "\n" for chat in (SUM, SPELL, TALK))
    (folder / "train.jsonl").write_text(lines)
    assert len(tasks.build(["exchanges"], tmp_path, "train")) == 3
    assert len(tasks.build(["exchanges:sums*2", "exchanges:spelling:1"], tmp_path, "train")) == 3
    with pytest.raises(ValueError, match="exchanges:sum: expected one of sums, counts, spelling"):
        tasks.build(["exchanges:sum"], tmp_path, "train")
