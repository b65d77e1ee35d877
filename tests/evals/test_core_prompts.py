"""Questions of CORE where the original stops or divides by nothing, and the law of the crop."""

import numpy as np
import pytest

from nanochat_jax.evals.core import prompts, result
from nanochat_jax.evals.core.prompts import Row
from nanochat_jax.evals.core.scoring import RowScore
from tests.evals.core_bundles import ROWS, TOKENIZER, choice, cloze, task


def one(kind, row, delimiter=" ", limit=1000):
    (example,) = prompts.examples(task(kind, 0, delimiter), [row], [0], TOKENIZER, limit)
    return example


@pytest.mark.parametrize("n", [1, 2, 5, 11])
def test_a_small_pool_gives_all_its_other_rows(n):
    for i in range(n):
        drawn = prompts.shot_indices(i, n, 10)
        assert sorted(drawn) == [j for j in range(n) if j != i][: len(drawn)]
        assert len(drawn) == min(10, n - 1)


def test_solved_examples_are_never_the_question():
    assert all(i not in prompts.shot_indices(i, 40, 10) for i in range(40))


def test_an_empty_delimiter_joins_the_two():
    row = {"context": "the cat ", "continuation": "sat"}
    assert prompts.render(task("language_modeling", 0, ""), row, []) == ["the cat", "the catsat"]


@pytest.mark.parametrize("kind", ROWS)
def test_a_crop_keeps_the_end_and_what_is_scored(kind):
    items = [ROWS[kind](i) for i in range(6)]
    whole = prompts.examples(task(kind), items, range(6), TOKENIZER, 1000)
    short = prompts.examples(task(kind), items, range(6), TOKENIZER, 24)
    for a, b in zip(whole, short, strict=True):
        assert b.cropped == any(len(row.ids) > 24 for row in a.rows)
        for x, y in zip(a.rows, b.rows, strict=True):
            assert y.ids.tolist() == x.ids.tolist()[-24:]
            assert y.ids[y.start : y.end].tolist() == x.ids[x.start : x.end].tolist()[-23:]


def test_a_crop_into_the_span_leaves_one_token_to_foretell_from():
    example = one("language_modeling", {"context": "a", "continuation": "the cat " * 20}, limit=8)
    (row,) = example.rows
    assert (len(row.ids), row.start, row.end) == (8, 1, 8) and example.cropped


def test_an_option_that_begins_another_is_scored_from_a_token_earlier():
    example = one("multiple_choice", {"query": "it", "choices": ["go", "go over"], "gold": 1})
    short, long = example.rows
    assert example.mended and short.start == long.start == len(short.ids) - 1
    assert short.end > short.start


def test_options_that_are_the_same_tie_and_the_first_is_chosen():
    row = {"query": "it", "choices": ["go", "go"], "gold": 0}
    example = one("multiple_choice", row)
    found = [
        RowScore(np.ones(r.end - r.start), np.zeros(r.end - r.start, int)) for r in example.rows
    ]
    grade = result.grade(task("multiple_choice"), example, found)
    assert example.mended and grade["correct"] and grade["chosen"] == 0


def test_nothing_at_all_to_score_is_not_chosen():
    example = one("multiple_choice", {"query": "", "choices": ["", "go"], "gold": 1}, delimiter="")
    found = [
        RowScore(np.ones(r.end - r.start), np.zeros(r.end - r.start, int)) for r in example.rows
    ]
    grade = result.grade(task("multiple_choice"), example, found)
    assert grade["chosen"] == 1 and grade["mean_losses"][0] is None


def test_an_empty_continuation_counts_as_wrong():
    example = one("language_modeling", {"context": "the cat", "continuation": ""}, delimiter="")
    empty = RowScore(np.empty(0), np.empty(0, int))
    grade = result.grade(task("language_modeling"), example, [empty])
    assert not grade["correct"] and grade["mended"]


def test_schema_contexts_where_one_ends_the_other_are_scored_from_the_second_token():
    row = {"context_options": ["cat", "the old cat"], "continuation": "sat", "gold": 0}
    for r in one("schema", row).rows:
        assert 1 <= r.start < r.end


def test_spans_of_a_language_question_follow_the_last_token_both_agree_on():
    whole = prompts.spans("language_modeling", [[9, 1, 2, 3], [9, 1, 5, 6, 7]])
    assert whole == [Row(whole[0].ids, 2, 5)]


def test_ids_do_not_depend_on_which_questions_are_made_together():
    items = [choice(i) for i in range(8)]
    some = prompts.examples(task("multiple_choice"), items, [5, 2], TOKENIZER, 1000)
    every = prompts.examples(task("multiple_choice"), items, range(8), TOKENIZER, 1000)
    for a, b in zip(some, [every[5], every[2]], strict=True):
        assert [r.ids.tolist() for r in a.rows] == [r.ids.tolist() for r in b.rows]


def test_a_language_question_keeps_its_own_blanks_but_not_its_contexts():
    row = {"context": "  the cat  ", "continuation": " sat "}
    assert prompts.render(task("language_modeling", 0), row, [cloze(0)]) == [
        f"{cloze(0)['context']} {cloze(0)['continuation']}\n\nthe cat",
        f"{cloze(0)['context']} {cloze(0)['continuation']}\n\nthe cat  sat ",
    ]
