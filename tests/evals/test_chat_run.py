"""Chat scores in their two places: a section of scripts.eval, and on the way of SFT."""

import dataclasses
import json
import pathlib

import pytest

from nanochat_jax import report
from nanochat_jax.checkpoint import store
from nanochat_jax.config import paths
from nanochat_jax.config.program import Eval
from nanochat_jax.config.stages import SFTTrain
from nanochat_jax.evals import run
from nanochat_jax.evals.chatcore import catalog
from nanochat_jax.tasks import hub
from nanochat_jax.train.hooks import chat_scores_hook
from tests.serve.world import BYTES, random_model

ARC = {"question": "?", "choices": {"text": ["x", "y"], "label": ["A", "B"]}, "answerKey": "B"}
SUM = {"question": "1+1", "answer": "#### 2"}


@pytest.fixture(scope="module")
def gpt():
    return random_model(sequence_len=128, n_layer=1)


@pytest.fixture
def checkpoint(gpt, tmp_path):
    """That model at step 7 of tag d1."""
    BYTES.save(paths.tokenizer(tmp_path))
    meta = {"model_config": dataclasses.asdict(gpt.cfg)}
    store.save(paths.checkpoints(tmp_path, "sft") / "d1", 7, gpt.params, meta)


@pytest.fixture
def files(tmp_path) -> pathlib.Path:
    """A folder of task files with five rows of each of two tasks, and no others."""
    folder = tmp_path / "files"
    for path, row in (("arc/ARC-Easy/test", ARC), ("gsm8k/test", SUM)):
        file = folder / f"{path}.jsonl"
        file.parent.mkdir(parents=True)
        file.write_text("".join(json.dumps(row) + "\n" for _ in range(5)))
    return folder


def test_every_task_of_chatcore_has_a_name(tmp_path):
    listed = "ARC-Easy|ARC-Challenge|MMLU|GSM8K|HumanEval|SpellingBee"
    assert run.tasks_of(Eval(tasks=listed), tmp_path) == [*catalog.BASELINES]
    assert run.tasks_of(Eval(tasks="bpb, GSM8K"), tmp_path) == ["bpb", "GSM8K"]
    assert run.tasks_of(Eval(), tmp_path) == ["bpb", "ChatCORE"]
    assert "ChatCORE" not in run.tasks_of(Eval(source="base"), tmp_path)
    with pytest.raises(ValueError, match="'GSM8'; did you mean 'GSM8K'"):
        run.tasks_of(Eval(tasks="GSM8"), tmp_path)


@pytest.mark.slow
def test_a_folder_s_tasks_are_scored_and_the_others_named_as_missing(tmp_path, checkpoint, files):
    config = Eval(tasks="ChatCORE", task_data=str(files), max_new_tokens=4, max_problems=3)
    section = run.run(config, tmp_path)
    assert [s.name for s in section.scores] == [
        "ARC-Easy",
        "GSM8K",
        "ChatCORE metric (2 of 6 tasks)",
    ]
    assert "- not scored: MMLU (no rows of cais/mmlu" in section.texts[-1]
    assert [d.name for d in section.details] == ["ARC-Easy", "GSM8K"]
    assert [(s.n, s.chance) for s in section.scores[:2]] == [(3, 0.25), (3, 0.0)]
    kept = tmp_path / "eval" / "sft_d1_000007_x3" / "chat"
    assert sorted(p.name for p in kept.iterdir()) == ["ARC-Easy.jsonl", "GSM8K_n1_t0_k50_m4.jsonl"]
    assert all(len(p.read_text().splitlines()) == 4 for p in kept.iterdir())
    report.write(tmp_path, section)
    text = report.generate(tmp_path, tmp_path).read_text()
    assert f"| ARC-Easy | - | - | {100 * section.scores[0].value:.2f}% (" in text


def test_tasks_picked_by_name_have_no_mean(tmp_path, checkpoint, files):
    config = Eval(tasks="ARC-Easy", task_data=str(files), controls=True)
    section = run.run(config, tmp_path)
    (score,), (check,) = section.scores, section.checks
    assert score.name == check.score == "ARC-Easy"
    assert check.says.startswith(f"{100 * score.value:.1f} %, options shuffled ")
    kept = tmp_path / "eval" / "sft_d1_000007" / "controls"
    assert {p.relative_to(kept).as_posix() for p in kept.glob("*/*")} == {
        "shuffled/ARC-Easy.jsonl", "without-question/ARC-Easy.jsonl",
    }  # fmt: skip
    digest = store.find(tmp_path / "chatsft_checkpoints" / "d1").identity["checkpoint digest"]
    assert section.figures == {
        "checkpoint tag": "d1", "checkpoint step": 7, "checkpoint digest": digest,
    }  # fmt: skip
    assert section.answers == "eval/sft_d1_000007/chat"


def test_a_named_task_without_data_says_what_to_do(tmp_path, checkpoint, files):
    config = Eval(tasks="MMLU", task_data=str(files))
    with pytest.raises(FileNotFoundError, match="expected mmlu/test"):
        run.run(config, tmp_path)


def test_what_is_not_in_the_hub_s_cache_is_not_fetched_unless_asked(tmp_path, monkeypatch):
    asked = []

    def snapshot(*args, local_files_only, **kw):
        asked.append(local_files_only)
        raise FileNotFoundError("not in the cache")

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot)
    source = hub.RowSource("some/rows", "all", "test", ("rows/test",))
    for fetch in (False, True):
        with pytest.raises(FileNotFoundError, match="some/rows, all, test"):
            hub.read_rows(source, fetch=fetch)
    assert asked == [True, False]
    assert catalog.at_hand(tmp_path)[0] == {} and asked[2:] == [True] * 5


@pytest.mark.slow
def test_sft_scores_the_tasks_whose_rows_are_here(tmp_path, gpt, files):
    config = SFTTrain(
        task_data=str(files), eval_metrics_every=2, eval_metrics_max_problems=2,
        eval_metrics_tasks=("MMLU", "ARC-Easy", "GSM8K"), chatcore_max_sample=1,
    )  # fmt: skip
    hook = chat_scores_hook(config, BYTES, tmp_path)
    assert [hook.due(step, False) for step in range(5)] == [False, False, True, False, True]
    assert hook.due(3, True)
    found = hook.run(gpt, 2)
    assert set(found) == {"arc_easy_acc", "gsm8k_acc", "chatcore_metric"}
    assert found["arc_easy_acc"] in (0.0, 1.0)


def test_sft_without_rows_or_wish_scores_nothing(tmp_path):
    (tmp_path / "empty").mkdir()
    without = SFTTrain(task_data=str(tmp_path / "empty"))
    assert not chat_scores_hook(without, BYTES, tmp_path).due(0, last=True)
    never = SFTTrain(eval_metrics_every=-1)
    assert not chat_scores_hook(never, BYTES, tmp_path).due(0, last=True)
