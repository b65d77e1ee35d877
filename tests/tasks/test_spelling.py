"""Spelling tasks: no word of training is met in evaluation."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nanochat_jax.tasks import spelling

WORDS = ["".join(random.Random(i).choices("abcdefgh", k=5)) for i in range(500)]


def words_of(task):
    """The words of a task's questions, as its answers spell them."""
    found = set()
    for i in range(len(task)):
        content = task[i]["messages"][1]["content"]
        line = content if isinstance(content, str) else content[0]["text"].splitlines()[3]
        found.add(line.split(":")[0])
    return found


@pytest.mark.parametrize("make", [spelling.simple_spelling, spelling.spelling_bee])
def test_no_word_of_one_split_is_met_in_the_other_by_any_task(make):
    tested = words_of(make(WORDS, 400, "test"))
    for other in (spelling.simple_spelling, spelling.spelling_bee):
        trained = words_of(other(WORDS, 2000, "train"))
        assert len(trained) > 100 and not tested & trained


def test_the_original_s_test_rows_are_its_training_rows():
    train = spelling.spelling_bee(WORDS, 20, "train", original=True)
    test = spelling.spelling_bee(WORDS, 19, "test", original=True)
    assert [test[i] for i in range(19)] == [train[i + 1] for i in range(19)]


def test_a_longer_list_moves_no_word_to_the_other_split():
    before = {w: spelling.held_out(w) for w in WORDS[:100]}
    assert all(spelling.held_out(w) == before[w] for w in before)
    test = [w for w in WORDS if spelling.held_out(w)]
    assert 0.03 * len(WORDS) < len(test) < 0.25 * len(WORDS)


def test_rows_do_not_depend_on_how_many_there_are():
    few, many = (spelling.spelling_bee(WORDS, n, "train") for n in (5, 50))
    assert [few[i] for i in range(5)] == [many[i] for i in range(5)]


@given(st.integers(0, 10**6))
def test_the_worked_answer_counts_right_and_scores(i):
    task = spelling.spelling_bee(WORDS, i + 1, "train")
    parts = task[i]["messages"][1]["content"]
    word, _, letter = (parts[2]["text"].split("'")[k] for k in (1, 2, 3))
    assert parts[3]["text"] == str(word.count(letter))
    assert parts[2]["text"] == f"'{word}'.count('{letter}')"
    assert task.score(task[i], parts[-1]["text"]) == 1.0


def test_a_list_too_short_for_the_split_is_refused():
    with pytest.raises(ValueError, match="for the test split"):
        spelling.spelling_bee([w for w in WORDS if not spelling.held_out(w)], 5, "test")
