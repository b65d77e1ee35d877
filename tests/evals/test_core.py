"""CORE as a whole: what is missing is said, what was marked is kept, what is broken is named."""

import json
import logging

import jax
import pytest

from nanochat_jax import sharding
from nanochat_jax.evals import controls, core
from nanochat_jax.evals.core import bundle, prompts, result
from nanochat_jax.models.gpt import Model
from tests.evals.core_bundles import ROWS, TOKENIZER, choice, cloze, model, schema, three, write
from tests.evals.core_bundles import task as bundle_task


@pytest.fixture(scope="module")
def gpt():
    return model()


@pytest.fixture
def ask(gpt):
    """`core.evaluate` of that model, with batches as small as the bundles."""
    return lambda folder, of=gpt, **kw: core.evaluate(
        of, TOKENIZER, folder, **{"batch_tokens": 2048, "max_seq_len": 128} | kw
    )


def numbers(done):
    return {label: (t.correct, t.n, t.cropped, t.mended) for label, t in done.tasks.items()}


def test_the_metric_is_the_mean_of_centered_accuracies(tmp_path, ask):
    done = ask(three(tmp_path))
    assert done.title == "CORE" and list(done.tasks) == list(ROWS)
    for task in done.tasks.values():
        assert task.centered == pytest.approx((task.accuracy - 0.25) / 0.75)
        assert 0 <= task.interval[0] <= task.accuracy <= task.interval[1] <= 1
    mean = sum(t.centered for t in done.tasks.values()) / 3
    assert done.metric == pytest.approx(mean)
    assert mean - done.half_width == done.score().low < done.metric < done.score().high


def test_tasks_without_a_file_or_rows_are_skipped_by_name(tmp_path, ask, caplog):
    tasks = {name: ("multiple_choice", 0, 25.0, [choice(i) for i in range(3)]) for name in "abc"}
    tasks["c"] = ("language_modeling", 0, 0.0, [])
    with caplog.at_level(logging.WARNING):
        done = ask(write(tmp_path, tasks, missing=("b",)))
    assert done.title == "CORE (1 of 3 tasks)" and list(done.tasks) == ["a"]
    assert "no file" in done.skipped["b"] and "no rows" in done.skipped["c"]
    assert done.metric == done.tasks["a"].centered
    assert "CORE without b" in caplog.text
    assert "not scored: b" in core.notes(done)


def test_a_small_pool_is_answered_with_the_examples_there_are(tmp_path, ask, caplog):
    rows = [choice(i) for i in range(4)]
    done = ask(write(tmp_path, {"a": ("multiple_choice", 10, 25.0, rows)}))
    assert (done.tasks["a"].n, done.tasks["a"].shots) == (4, 3)
    assert "3 solved examples instead of 10" in caplog.text
    one = ask(tmp_path, max_per_task=1)
    assert (one.tasks["a"].n, one.tasks["a"].shots) == (1, 0)


def test_without_its_question_an_option_is_read_behind_the_solved_examples_alone(tmp_path, ask):
    rows = [choice(i) for i in range(12)]
    task = ("multiple_choice", 0, 25.0, rows)
    other = ("multiple_choice", 0, 25.0, [row | {"query": ""} for row in rows])
    real = write(tmp_path / "real", {"a": task, "b": ("schema", 0, 25.0, [schema(1)])})
    done, blind = ask(real), ask(real, blind=True)
    assert list(blind.tasks) == ["a"] and len(blind.tasks["a"].right) == 12
    assert blind.tasks == ask(write(tmp_path / "other", {"a": other})).tasks
    (check,) = controls.core_checks(done, blind)
    share = lambda found: f"{100 * found.tasks['a'].accuracy:.1f} %"
    assert check.says.startswith(f"{share(done)}, without the question {share(blind)}, guessing 25")
    shots = [
        prompts.examples(bundle_task("multiple_choice"), rows, [3], TOKENIZER, 500, b)[0]
        for b in (0, 1)
    ]
    before, after = (TOKENIZER.decode(example.rows[0].ids.tolist()) for example in shots)
    assert after == before.replace(rows[3]["query"], "")
    assert not ask(
        write(tmp_path / "none", {"b": ("schema", 0, 25.0, [schema(1)])}), blind=True
    ).tasks


def test_rows_are_cut_after_the_shuffle(tmp_path, ask):
    done = ask(three(tmp_path, n=9), max_per_task=4)
    assert [t.n for t in done.tasks.values()] == [4, 4, 4]


def test_long_prompts_are_cut_and_counted(tmp_path, ask, caplog):
    done = ask(three(tmp_path), max_seq_len=24)
    assert done.cropped == sum(t.cropped for t in done.tasks.values()) > 0
    assert "cut at their beginning" in caplog.text and "cut at their" in core.notes(done)


def test_by_itself_ten_contexts_are_read(tmp_path, gpt):
    rows = [{"context": "the cat " * 600, "continuation": "sat"}]
    folder = write(tmp_path, {"a": ("language_modeling", 0, 0.0, rows)})
    done = core.evaluate(gpt, TOKENIZER, folder, batch_tokens=1024, answers_dir=tmp_path / "kept")
    grade = json.loads((tmp_path / "kept" / "a.jsonl").read_text().splitlines()[1])
    assert done.cropped == 1 and grade["tokens"] == 10 * gpt.cfg.sequence_len


def test_questions_with_nothing_to_score_are_answered_and_counted(tmp_path, ask):
    tasks = {
        "a": ("multiple_choice", 0, 25.0, [{"query": "", "choices": ["go", "go over"], "gold": 0}]),
        "b": ("language_modeling", 0, 0.0, [cloze(0) | {"continuation": ""}, cloze(1)]),
        "c": ("schema", 0, 50.0, [schema(0) | {"context_options": ["cat", "old cat"]}]),
    }
    done = ask(write(tmp_path, tasks))
    assert [t.n for t in done.tasks.values()] == [1, 2, 1]
    assert done.tasks["a"].mended == 1


@pytest.mark.slow
def test_grades_are_the_same_on_any_mesh(tmp_path, ask, gpt):
    folder = three(tmp_path)
    spread = ask(folder, mesh=sharding.make_mesh("4"), batch_tokens=512)
    assert numbers(spread) == numbers(ask(folder))
    mesh = sharding.make_mesh("data=2,fsdp=2")
    params = jax.device_put(gpt.params, sharding.shardings(mesh, gpt.params))
    assert numbers(ask(folder, Model(gpt.gpt, params), batch_tokens=512)) == numbers(spread)


def test_an_interrupted_evaluation_goes_on_where_it_stopped(tmp_path, ask, monkeypatch):
    folder, kept = three(tmp_path), tmp_path / "kept"
    whole = ask(folder, answers_dir=kept)
    path = kept / "multiple_choice.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[:5]) + lines[5][:20])  # torn by a kill
    asked, grade = [], result.grade
    monkeypatch.setattr(result, "grade", lambda *a: asked.append(1) or grade(*a))
    assert numbers(ask(folder, answers_dir=kept)) == numbers(whole)
    assert len(asked) == 12 - 4
    again = [json.loads(line) for line in path.read_text().splitlines()]
    assert again[0] == json.loads(lines[0])
    order = lambda marks: sorted(marks, key=lambda m: m["question"])
    assert [m["correct"] for m in order(again[1:])] == [
        m["correct"] for m in order(map(json.loads, lines[1:]))
    ]


def test_grades_of_another_model_are_not_taken_over(tmp_path, ask, gpt, monkeypatch):
    folder, kept = three(tmp_path), tmp_path / "kept"
    ask(folder, answers_dir=kept)
    other = Model(gpt.gpt, jax.tree.map(lambda p: p * 1.001, gpt.params))
    asked, grade = [], result.grade
    monkeypatch.setattr(result, "grade", lambda *a: asked.append(1) or grade(*a))
    ask(folder, other, answers_dir=kept)
    assert len(asked) == 36
    ask(folder, other, answers_dir=kept)
    assert len(asked) == 36


def test_the_table_is_the_originals(tmp_path, ask):
    done = ask(three(tmp_path))
    core.write_csv(done, tmp_path / "deep" / "base_model_000007.csv")
    lines = (tmp_path / "deep" / "base_model_000007.csv").read_text().splitlines()
    assert lines[0] == f"{'Task':<35}, {'Accuracy':<10}, {'Centered':<10}"
    assert lines[-1] == f"{'CORE':<35}, {'':<10}, {done.metric:<10.6f}"
    assert len(lines) == 5


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda d: (d / "core.yaml").unlink(), "no CORE tasks in .*eval_bundle.zip"),
        (lambda d: (d / "eval_meta_data.csv").unlink(), "what guessing scores"),
        (lambda d: edit(d / "core.yaml", "schema", "sketch", 2), "'sketch'; known are"),
        (lambda d: edit(d / "core.yaml", "num_fewshot: [2]", "", 1), "has no num_fewshot"),
        (lambda d: edit(d / "core.yaml", "label: schema", "label: multiple_choice"), "twice"),
        (lambda d: edit(d / "eval_meta_data.csv", "schema,", "sketch,"), "baseline for schema"),
        (lambda d: edit(rows_file(d), '"query"', '"ask"', 1), "jsonl:1: .* needs 'query'"),
        (lambda d: edit(rows_file(d), '"gold": 1', '"gold": 3'), "jsonl:2: gold is 3, but there"),
        (lambda d: edit(rows_file(d), "}", "", 1), "jsonl:1: not valid JSON"),
        (lambda d: edit(d / "core.yaml", "some/", "../../", 1), "is not inside of eval_data"),
        (lambda d: edit(d / "core.yaml", "some/", "/etc/", 1), "is not inside of eval_data"),
        (lambda d: edit(d / "core.yaml", "[2]", "[2", 1), "core.yaml is not valid YAML"),
        (lambda d: [p.unlink() for p in (d / "eval_data" / "some").iterdir()], "file of none"),
    ],
)
def test_a_broken_bundle_is_named(tmp_path, ask, change, said):
    folder = three(tmp_path)
    change(folder)
    with pytest.raises((ValueError, FileNotFoundError), match=said):
        ask(folder)


def test_a_bundle_that_was_edited_on_windows_is_read(tmp_path):
    folder = three(tmp_path)
    before = bundle.read(folder), bundle.rows(bundle.read(folder)[0])
    for path in (folder / "core.yaml", folder / "eval_meta_data.csv", rows_file(folder)):
        path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n"))
    assert (bundle.read(folder), bundle.rows(bundle.read(folder)[0])) == before


def edit(path, old, new, count=-1):
    path.write_text(path.read_text().replace(old, new, count))


def rows_file(folder):
    return folder / "eval_data" / "some" / "multiple_choice.jsonl"


def test_a_prompt_of_one_token_is_refused(tmp_path, ask):
    with pytest.raises(ValueError, match="max_seq_len is 1"):
        ask(three(tmp_path), max_seq_len=1)
