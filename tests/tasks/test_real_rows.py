"""The published data sets, where a copy lies beside the repository: every row can be used."""

import itertools

import pytest

from nanochat_jax import tasks
from nanochat_jax.serve.engine.calculator import use_calculator
from nanochat_jax.tasks import humaneval
from nanochat_jax.tokenizer import Tokenizer
from tests import needs
from tests.evals.programs import run_many

pytestmark = needs.task_data

ROWS = {
    ("ARC-Easy", "train"): 2251, ("ARC-Easy", "val"): 2376,
    ("ARC-Easy:validation", "val"): 570, ("ARC-Challenge:validation", "val"): 299,
    ("ARC-Challenge", "train"): 1119, ("ARC-Challenge", "val"): 1172,
    ("MMLU", "val"): 14042, ("MMLU:dev", "train"): 285,
    ("GSM8K", "train"): 7473, ("GSM8K", "val"): 1319,
    ("HumanEval", "val"): 164,
    ("SmolTalk", "train"): 11815, ("SmolTalk", "val"): 600,
    ("identity", "train"): 1000,
    ("SimpleSpelling:300", "train"): 300, ("SpellingBee:256", "val"): 256,
}  # fmt: skip
CASES = [pytest.param(*case, id="/".join(case)) for case in ROWS]


@pytest.fixture(scope="module")
def tokenizer():
    return Tokenizer.train(["the cat sat on the mat"] * 3, 280)


def real(name, split, root):
    return tasks.build([name], root, split, task_data=str(needs.TASK_DATA))


@pytest.mark.parametrize(("name", "split"), CASES)
def test_all_rows_are_there_and_can_be_rendered(name, split, tokenizer, tmp_path):
    task = real(name, split, tmp_path)
    assert len(task) == ROWS[name, split]
    every = max(1, len(task) // 200)
    for i in range(0, len(task), every):
        ids, mask = tokenizer.render_conversation(task[i], max_tokens=1 << 20)
        assert len(ids) == len(mask) and 0 < sum(mask) < len(mask)


@pytest.mark.parametrize("name", ["ARC-Easy", "ARC-Challenge", "MMLU", "GSM8K", "SpellingBee"])
def test_the_given_answers_are_right_and_others_wrong(name, tokenizer, tmp_path):
    task = tasks.build_one(name, tmp_path, task_data=str(needs.TASK_DATA))
    for i in range(len(task)):
        conversation = task[i]
        content = conversation["messages"][-1]["content"]
        if task.kind == "categorical":
            right, wrong = content, next(x for x in conversation["letters"] if x != content)
        else:
            right, wrong = content[-1]["text"], "#### no number"
        assert task.score(conversation, right) == task.reward(conversation, right) == 1.0, i
        assert task.score(conversation, wrong) == task.reward(conversation, wrong) == 0.0, i


@pytest.mark.slow
def test_every_given_program_passes_in_the_sandbox_and_none_without_its_body(tmp_path):
    task = tasks.build_one("HumanEval", tmp_path, task_data=str(needs.TASK_DATA))
    rows = [task[i] for i in range(len(task))]
    given = [humaneval.program(c, c["messages"][1]["content"]) for c in rows]
    empty = [humaneval.program(c, c["messages"][0]["content"] + "    pass") for c in rows]
    results = run_many(given + empty, checks=True, timeout_s=30)
    assert [r.error for r in results[: len(rows)]] == [None] * len(rows)
    assert not any(r.success for r in results[len(rows) :])


@pytest.mark.parametrize("name", ["GSM8K", "SpellingBee"])
def test_the_calculator_gives_the_results_of_the_worked_answers(name, tmp_path):
    """Of SpellingBee always; GSM8K's authors rounded and left out signs in some places."""
    task, same, calls = real(f"{name}:300", "train", tmp_path), 0, 0
    for parts in (task[i]["messages"][1]["content"] for i in range(len(task))):
        for call, output in itertools.pairwise(parts):
            if call["type"] == "python":
                calls += 1
                same += _equal(use_calculator(call["text"]), output["text"])
    assert same == calls if name == "SpellingBee" else same > 0.95 * calls


def test_spelling_is_tested_on_no_word_of_training(tmp_path):
    words = lambda name, split: {
        task[i]["messages"][1]["content"][2]["text"].split("'")[1]
        if name == "SpellingBee"
        else task[i]["messages"][1]["content"].split(":")[0]
        for task in [real(f"{name}:{20000 if split == 'train' else 256}", split, tmp_path)]
        for i in range(len(task))
    }
    trained = words("SpellingBee", "train") | words("SimpleSpelling", "train")
    tested = words("SpellingBee", "val")
    assert len(trained) > 30000 and len(tested) > 250 and not trained & tested


def _equal(value, text: str) -> bool:
    try:
        return abs(float(value) - float(text)) < 1e-9
    except (TypeError, ValueError):
        return False


def test_tool_calls_of_the_worked_answers_are_parts(tmp_path):
    task = real("GSM8K", "train", tmp_path)
    kinds = [p["type"] for i in range(len(task)) for p in task[i]["messages"][1]["content"]]
    assert kinds.count("python") == kinds.count("python_output") > 3 * len(task)
    assert not any("<<" in p["text"] for i in range(500) for p in task[i]["messages"][1]["content"])


def test_a_mixture_of_the_sft_stage_holds_all_of_its_rows(tmp_path):
    names = ["ARC-Easy", "ARC-Challenge", "GSM8K*2", "SmolTalk:10000", "identity",
             "SimpleSpelling:300", "SpellingBee:300"]  # fmt: skip
    mixture = tasks.build(names, tmp_path, "train", task_data=str(needs.TASK_DATA))
    assert len(mixture) == 2251 + 1119 + 2 * 7473 + 10000 + 1000 + 300 + 300
    assert "messages" in mixture[0]
