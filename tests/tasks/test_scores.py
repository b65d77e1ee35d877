"""Scores: what counts as right, and what is refused; rows in the original's order."""

import numpy as np
import pytest

from nanochat_jax.tasks import Mixture, arc, choice, gsm8k, humaneval, mmlu, smoltalk
from nanochat_jax.tasks.task import shuffled

PROBLEM = {
    "prompt": "import math\n\ndef f(x):\n    ...\n",
    "canonical_solution": "    return x\n",
    "entry_point": "f",
    "test": "def check(c): assert c(1) == 1",
}


def test_a_shuffle_is_numpy_s_permutation_of_that_seed():
    rows = [{"n": i} for i in range(10)]
    assert [row["n"] for row in shuffled(rows)] == [5, 6, 0, 7, 3, 2, 4, 9, 1, 8]
    assert list(shuffled(rows, 7).order) == list(np.random.default_rng(7).permutation(10))


def test_a_mixture_s_order_is_the_documented_one():
    numbers = [f"{i}" for i in range(10)]
    assert [int(x) for x in Mixture([numbers])] == [7, 3, 2, 8, 5, 6, 9, 4, 0, 1]


def test_a_reward_takes_any_text_where_a_score_wants_a_letter():
    row = choice.conversation("which?", ["A", "B"], ["x", "y"], "B")
    with pytest.raises(ValueError, match="expected one of A, B, got 'the second'"):
        choice.score(row, "the second")
    assert choice.reward(row, "the second") == 0.0
    assert choice.reward(row, " B\n") == choice.score(row, "B") == 1.0


def test_an_answer_that_is_no_letter_of_the_row_is_refused():
    row = {"question": "q", "choices": {"text": ["x"], "label": ["A"]}, "answerKey": "C"}
    with pytest.raises(ValueError, match=r"answer 'C' is none of the letters \['A'\]"):
        arc.question(row).conversation()


def test_shuffled_choices_take_the_answer_along_and_the_letters_stay():
    row = {"question": "q", "subject": "s", "choices": list("wxyz"), "answer": 3}
    asked = mmlu.task([row | {"question": f"q{i}"} for i in range(400)])
    moved = [asked.changed(choice.shuffled).question(row) for row in asked.rows]
    assert all(sorted(q.choices) == list("wxyz") and q.right == "z" for q in moved)
    assert all(q.letters == mmlu.LETTERS and q.about == {"subject": "s"} for q in moved)
    places = [sum(q.answer == letter for q in moved) for letter in mmlu.LETTERS]
    assert min(places) > 70  # of 400, a quarter each
    assert moved == [asked.changed(choice.shuffled).question(row) for row in asked.rows]
    text = asked.changed(choice.without_question)[0]["messages"][0]["content"]
    assert text.splitlines()[:2] == ["Multiple Choice question: ", "- w=A"]
    assert (
        text.replace("question: ", f"question: {asked.rows[0]['question']}")
        == (asked[0]["messages"][0]["content"])
    )


def test_rows_of_mmlu_s_old_form_are_unwrapped():
    row = {"question": "q", "subject": "s", "choices": list("wxyz"), "answer": 3}
    assert mmlu.question({"train": row}) == mmlu.question(row)
    assert mmlu.question(row).conversation()["messages"][1]["content"] == "D"
    with pytest.raises(ValueError, match="expected 4 choices"):
        mmlu.question(row | {"choices": ["only one"]})


def test_a_calculation_of_gsm8k_is_split_at_its_last_equals_sign():
    row = {"question": "q", "answer": "a<<1+1=2>>2<<2*2=4>><<x>>\n#### 4"}
    parts = [(p["type"], p["text"]) for p in gsm8k.conversation(row)["messages"][1]["content"]]
    assert parts == [
        ("text", "a"), ("python", "1+1"), ("python_output", "2"), ("text", "2"),
        ("python", "2*2"), ("python_output", "4"), ("text", ""),
        ("python", "x"), ("python_output", ""), ("text", "\n#### 4"),
    ]  # fmt: skip


def test_where_the_reference_has_no_number_no_answer_is_right():
    row = gsm8k.conversation({"question": "q", "answer": "it depends"})
    assert gsm8k.score(row, "it depends") == 0.0


def test_humaneval_runs_the_program_that_the_sandbox_is_given():
    seen = []
    task = humaneval.task([PROBLEM], lambda text: seen.append(text) or "return x" in text)
    assert task.score(task[0], "```python\ndef f(x):\n    return x\n```") == 1.0
    assert task.reward(task[0], "no code") == 0.0
    head, code, tests = seen[0].split("\n\n")
    assert (head, code) == ("import math", "def f(x):\n    return x")
    assert tests == "def check(c): assert c(1) == 1\ncheck(f)"
    space = {}
    exec(seen[0], space)  # our own program, above


def test_humaneval_without_a_sandbox_can_be_read_not_scored():
    task = humaneval.task([PROBLEM])
    assert task[0]["entry_point"] == "f"
    with pytest.raises(ValueError, match="execute"):
        task.score(task[0], "x")


def test_conversations_out_of_turn_are_refused():
    with pytest.raises(ValueError, match="turns alternate"):
        smoltalk.conversation({"messages": [{"role": "user", "content": "a"}] * 2})


def test_a_view_scores_as_its_task_does_and_clips_to_the_rows():
    task = gsm8k.task([{"question": f"{i}", "answer": f"#### {i}"} for i in range(5)])
    view = task.view(1, 100, 2)
    assert (len(view), view.kind, view.name) == (2, "generative", "GSM8K")
    assert view[1] == task[3] and view.score is task.score
