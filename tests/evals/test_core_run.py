"""CORE in its two places: a section of scripts.eval, and on the way of base training."""

import dataclasses

import pytest

from nanochat_jax import report
from nanochat_jax.checkpoint import store
from nanochat_jax.config import paths
from nanochat_jax.config.program import Eval
from nanochat_jax.config.stages import BaseTrain
from nanochat_jax.evals import run
from nanochat_jax.train.hooks import core_hook
from tests.evals.core_bundles import TOKENIZER, choice, model, three, write


@pytest.fixture(scope="module")
def gpt():
    return model()


@pytest.fixture
def checkpoint(gpt, tmp_path):
    """That model at step 7 of tag d2."""
    TOKENIZER.save(paths.tokenizer(tmp_path))
    meta = {"model_config": dataclasses.asdict(gpt.cfg)}
    store.save(paths.checkpoints(tmp_path, "base") / "d2", 7, gpt.params, meta)


def test_core_is_scored_by_itself_only_of_base_models_whose_bundle_is_here(tmp_path):
    assert "core" not in run.tasks_of(Eval(source="base"), tmp_path)
    (tmp_path / "eval_bundle").mkdir()
    assert "core" in run.tasks_of(Eval(source="base"), tmp_path)
    assert "core" not in run.tasks_of(Eval(source="sft"), tmp_path)
    assert run.tasks_of(Eval(source="sft", tasks="core"), tmp_path) == ["core"]


def test_a_bundle_beside_local_task_data_is_found(tmp_path):
    (tmp_path / "files" / "core_eval").mkdir(parents=True)
    config = Eval(source="base", task_data=str(tmp_path / "files"))
    assert "core" in run.tasks_of(config, tmp_path)


@pytest.mark.slow
def test_the_section_holds_the_score_its_tasks_and_files(tmp_path, checkpoint):
    folder = tmp_path / "eval_bundle"
    folder.mkdir()
    three(folder, missing=("schema",))
    config = Eval(source="base", tasks="core", max_problems=3, controls=True)
    section = run.run(config, tmp_path)
    assert [check.score for check in section.checks] == ["multiple_choice"]
    assert (tmp_path / "eval/base_d2_000007_x3/controls/without-question").is_dir()
    (score,) = section.scores
    assert [score.name] == ["CORE (2 of 3 tasks)"]
    assert "- not scored: schema" in section.texts[-1]
    assert [d.name for d in section.details] == ["multiple_choice", "language_modeling"]
    centered = sum(d.centered for d in section.details) / 2
    assert score.value == pytest.approx(centered) and score.low < score.value < score.high
    assert (tmp_path / "base_eval" / "base_model_000007.csv").exists()
    kept = tmp_path / "eval" / "base_d2_000007_x3" / "core"
    assert sorted(p.name for p in kept.iterdir()) == [
        "language_modeling.jsonl",
        "multiple_choice.jsonl",
    ]
    report.write(tmp_path, section)
    text = report.generate(tmp_path, tmp_path).read_text()
    assert f"| CORE (2 of 3 tasks) | {score.value:.4f} (±" in text and "| multiple_choice |" in text


def test_a_core_that_was_named_but_is_not_here_says_what_to_do(tmp_path, checkpoint):
    with pytest.raises(FileNotFoundError, match=r"eval_bundle\.zip; unpack that there"):
        run.run(Eval(source="base", tasks="core"), tmp_path)


def test_training_without_the_bundle_never_scores_it(tmp_path):
    hook = core_hook(BaseTrain(core_metric_every=1), TOKENIZER, tmp_path / "eval_bundle")
    assert not any(hook.due(step, last) for step in range(3) for last in (False, True))


def test_training_scores_core_every_so_often_and_at_its_end(tmp_path, gpt):
    folder = tmp_path / "eval_bundle"
    folder.mkdir()
    rows = [choice(i) for i in range(9)]
    write(folder, {"a": ("multiple_choice", 0, 25.0, rows), "b": ("schema", 0, 50.0, [])})
    config = BaseTrain(core_metric_every=2, core_metric_max_per_task=4)
    hook = core_hook(config, TOKENIZER, folder)
    assert [hook.due(step, False) for step in range(5)] == [False, False, True, False, True]
    assert hook.due(3, True)
    found = hook.run(gpt, 2)
    assert found["core_metric"] == found["centered_results"]["a"]
    assert found["core_tasks"] == "1 of 2"
