"""What is looked for in a training text is found, all of it and nothing else."""

import dataclasses
import functools
import itertools

import numpy as np
import pyarrow as pa
import pytest
from scipy import stats

from nanochat_jax import files
from nanochat_jax.evals import answers_log
from nanochat_jax.evals.contamination import findings, passages
from nanochat_jax.evals.contamination.findings import Findings, Where
from nanochat_jax.evals.contamination.index import Index, Passage
from nanochat_jax.evals.contamination.passages import Sought
from nanochat_jax.evals.contamination.words import counts, words
from nanochat_jax.evals.shares import Share, fisher_test
from nanochat_jax.tasks import arc, gsm8k
from tests.evals import core_bundles


def word_lists(texts):
    return [[w for w in one if w] for one in words(pa.array(texts, pa.string())).to_pylist()]


def test_words_are_what_is_left_without_case_punctuation_and_spaces():
    texts = ["“Hello” — it’s ÉTÉ,\u00a0x_y 12.5\tkm…", "", " ?! ", "ein «Fuß»  am\nWeg", "数学。好"]
    assert word_lists(texts) == [
        "hello it s été x y 12 5 km".split(), [], [], "ein fuß am weg".split(), ["数学", "好"],
    ]  # fmt: skip
    assert counts(words(pa.array(texts))).tolist() == [9, 0, 0, 4, 2]


def slowly(tasks, n, texts):
    """Row -> length of the longest run of it that is in a text, word by word."""
    found, row = {}, 0
    texts = [f" {' '.join(words)} " for words in word_lists(texts)]
    for asked, answer in itertools.chain.from_iterable(tasks.values()):
        q, a = word_lists([asked, answer])
        runs = [(q + a)[i : i + n] for i in range(len(q + a) - n + 1)]
        runs += [q] * (0 < len(q) < n)
        there = [len(r) for r in runs if any(f" {' '.join(r)} " in text for text in texts)]
        if there:
            found[row] = max(there)
        row += 1
    return found


@pytest.mark.parametrize("n", [1, 2, 4, 6])
def test_what_is_found_is_what_a_slow_search_finds(n):
    rng = np.random.default_rng(n)
    say = lambda most: " ".join(rng.choice(list("abcd"), rng.integers(0, most)))
    # Ten rows a task: of more, what stood in most of them would be the task's own wording.
    tasks = {f"{k}": [Passage(say(3 + 3 * k), say(4)) for _ in range(10)] for k in range(5)}
    texts = [say(9) + ". " + rng.choice(["z ", "", "Z, "]) + say(9) for _ in range(30)]
    index, wanted = Index(tasks, n), slowly(tasks, n, texts)
    assert {hit.row: hit.length for hit in index.find(pa.array(texts))} == wanted
    assert 10 < len(wanted) < 50
    for hit in index.find(pa.array(texts)):
        said = f" {' '.join(word_lists([texts[hit.text]])[0])} "
        assert f" {index.quoted(hit)} " in said


def test_no_run_goes_from_one_text_into_the_next_and_a_slice_is_looked_through_as_it_is():
    index = Index({"t": [Passage("one two three four five")]}, 4)
    texts = pa.array(["x one two", "three four five", "y", "zero one, TWO three four. six"])
    assert [hit.text for hit in index.find(texts)] == [3]
    assert [hit.text for hit in index.find(texts.slice(2))] == [1]
    assert index.find(texts.slice(0, 3)) == [] == index.find(texts.slice(0, 0))
    large = texts.cast(pa.large_string())
    assert index.find(large) == index.find(texts.cast(pa.string()).dictionary_encode()) != []


def test_what_a_task_says_in_every_row_tells_of_none():
    wording = "complete the rest of the sequence making sure that it is right"
    rows = [Passage(f"{wording} input {'<' * i}", f"number {i}") for i in range(40)]
    index = Index({"dyck": rows, "other": [Passage(f"{wording} input here")]}, 8)
    (hit,) = index.find(pa.array([f"{wording}, input, and more", "input number 3"]))
    assert hit.row == 40 and index.has_run.tolist() == [True] * 41
    bare = Index({"dyck": [Passage(wording)] * 40}, 8)
    assert not bare.has_run.any() and bare.find(pa.array([wording])) == []


def test_questions_are_taken_from_rows_without_the_words_around_them(tmp_path):
    row = {"question": "why?", "choices": {"text": ["x", "y"], "label": ["A", "B"]}}
    easy = arc.task([row | {"answerKey": "B"}])
    assert passages.of_chat(easy, "ARC-Easy").passages == [Passage("why?", "y")]
    sums = gsm8k.task([{"question": "1+1", "answer": "it is <<1+1=2>>2\n#### 2"}])
    assert passages.of_chat(sums, "GSM8K").passages == [Passage("1+1", "it is  1+1 2 2\n#### 2")]
    core = passages.of_core(core_bundles.three(tmp_path / "bundle", n=3))
    assert set(core) == set(core_bundles.ROWS) and len(core["schema"].passages) == 3
    item = core_bundles.schema(1)
    assert Passage(item["context_options"][1], item["continuation"]) in core["schema"].passages
    question = {"query": "Question: is it?", "choices": ["no", "yes"], "gold": 1}
    one = {"t": ("multiple_choice", 0, 50.0, [question])}
    core = passages.of_core(core_bundles.write(tmp_path / "one", one))
    assert core["t"].passages == [Passage("is it?", "yes")]


ROWS = [Passage(f"{i} two three four", "five") for i in range(100)]


def write_answers(folder, right, digest):
    first = {"task": "MMLU", "questions": len(right), "rows": digest}
    lines = [{"question": i, "correct": bool(r)} for i, r in enumerate(right)]
    (folder / "chat").mkdir(parents=True, exist_ok=True)
    files.write_json_lines(folder / "chat" / "MMLU.jsonl", [first, *lines])


def test_the_score_of_the_other_rows_stands_beside_that_of_all(tmp_path):
    right = [i < 20 or i % 4 == 0 for i in range(100)]  # the first twenty, and a quarter of others
    write_answers(tmp_path, right, digest := answers_log.digest_of(ROWS))
    tasks = {"MMLU": Sought(ROWS, 25.0, digest, "chat")}
    index = Index({"MMLU": ROWS}, 4)
    found = {i: Where("0 two three four", 4, f"text {i}") for i in range(20)}
    found[50] = Where("50", 1, "a number")
    look = functools.partial(findings.of_tasks, tasks, index, found, tmp_path)
    (one,) = look(0.0)
    assert (one.dirty.correct, one.dirty.n) == (20, 100)
    assert (one.score.correct, one.score.n) == (40, 100)
    assert (one.clean.correct, one.clean.n) == (20, 80)
    (check,) = findings.checks([one])
    assert check.score == "MMLU" and not check.sound  # all of the twenty, a quarter of the others
    assert check.says == (
        "20 of 100 rows (20.0 %) share 4 words in a row with the training text; score 40.0 %, of "
        "the other rows 25.0 % (16.8 to 35.5), of these 100.0 %: more apart than by chance"
    )
    assert "| MMLU | 100 | 20 of 100 | 20.0 (13.3 to 28.9) |" in findings.table([one])
    assert list(one.examples())[0] == "- MMLU, row 0: `0 two three four` in text 0"
    kept = (tmp_path / "chat" / "MMLU.jsonl").stat().st_mtime
    assert look(kept)[0].score is not None and look(kept + 1)[0].score is None  # another model's
    write_answers(tmp_path, right[:99], digest)  # broken off
    (one,) = look(0.0)
    (check,) = findings.checks([one])
    assert one.score is None and check.says.endswith("; there are no answers to compare")
    assert not check.sound


def judged(dirty, dirty_right, clean, clean_right):
    """What is said of a task of which so many rows were found, and so many were right."""
    marks = lambda n, right: [i < right for i in range(n)]
    n, right = dirty + clean, np.array(marks(dirty, dirty_right) + marks(clean, clean_right))
    found = {i: Where("w", 13, "") for i in range(dirty)}
    one = Findings("t", 13, np.ones(n, bool), np.zeros(n, bool), found, right)
    (check,) = findings.checks([one])
    return check.sound, check.says.split("; ")[-1]


def test_dirty_rows_are_compared_with_the_others():
    assert judged(20, 6, 80, 20) == (True, "score 26.0 %, of the other rows 25.0 % (16.8 to 35.5)")
    assert not judged(100, 50, 0, 0)[0] and "none is left" in judged(100, 50, 0, 0)[1]
    sound, told = judged(95, 60, 5, 2)
    assert not sound and told.endswith("of the other rows 40.0 % (11.8 to 76.9): too few to tell")
    sound, told = judged(95, 90, 5, 2)
    assert not sound and told.endswith(", of these 94.7 %: more apart than by chance")
    assert judged(3, 1, 27, 9)[0]  # most are left
    # The total, 27.7 %, is within the others' 15.0 to 31.1; those that were found are above it.
    assert not judged(30, 14, 100, 22)[0]


def test_fisher_s_test_is_exact():
    for a, n, b, m in [(3, 8, 1, 9), (0, 5, 5, 5), (40, 95, 2, 5), (900, 2000, 9, 90)]:
        wanted = stats.fisher_exact([[a, n - a], [b, m - b]]).pvalue
        assert fisher_test(Share(a, n, 0.0), Share(b, m, 0.0)) == pytest.approx(wanted)
        assert fisher_test(Share(b, m, 0.0), Share(a, n, 0.0)) == pytest.approx(wanted)


def test_tasks_of_short_questions_alone_are_told_apart():
    long = Findings("long", 13, np.ones(4, bool), np.zeros(4, bool), {})
    zeros, ones = np.zeros(5, bool), np.ones(5, bool)
    short = Findings("short", 13, zeros, ones, {i: Where("a b", 2, "") for i in range(5)})
    first, second = findings.checks([long, short])
    assert first.score == "long" and first.says.startswith("none of 4 rows shares")
    assert (second.score, second.sound, second.says) == (
        "short", False,
        "no row has 13 words in a row to look for; of 5 questions with fewer words 5 were found "
        "whole, which may be chance",
    )  # fmt: skip
    (check,) = findings.checks([dataclasses.replace(short, found={})])
    assert check.sound and check.says.endswith("of 5 questions with fewer words 0 were found whole")
    nothing = Findings("own wording", 13, zeros, zeros, {})
    assert findings.checks([nothing]) == []


def test_tasks_of_which_nothing_is_found_are_told_together():
    none = np.ones(5, bool), np.zeros(5, bool)
    clean = [Findings(name, 13, *none, {}) for name in ("a", "b")]
    (check,) = findings.checks(clean)
    assert check.sound and check.score == "a, b"
    assert check.says == "none of 10 rows shares 13 words in a row with the training text"
