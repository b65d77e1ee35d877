"""Tasks hold the original's questions, in its order, and score answers as it does."""

import pytest

from nanochat_jax.tasks import choice, gsm8k, humaneval
from nanochat_jax.tasks.task import view
from tests.golden.conftest import files, load_json
from tests.golden.task_files import golden_mixture, golden_sequence, golden_task, plain

TASKS = files("tasks_*.json")


def names(wanted=lambda golden, name: True) -> list:
    """A parameter (path, task) for each task of each file."""
    return [
        pytest.param(p.values[0], name, id=f"{p.id}/{name}", marks=p.marks)
        for p in TASKS
        for name in (_chosen(p.values[0], wanted) if p.values[0] else ["absent"])
    ]


def _chosen(path, wanted) -> list[str]:
    golden = load_json(path)
    return [name for name in golden["tasks"] if wanted(golden, name)]


def scored(golden, name) -> bool:
    """Whether answers are scored here; those that are scored by running them are not."""
    return name != "HumanEval" and any(e["task"] == name for e in golden["evaluations"])


@pytest.mark.parametrize(("path", "name"), names())
def test_every_conversation_comes_in_the_original_s_order(path, name):
    golden, task = load_json(path)["tasks"][name], golden_task(path, name)
    assert len(task) == golden["length"]
    assert plain([task[i] for i in range(len(task))]) == golden["conversations"]


@pytest.mark.parametrize(("path", "name"), names())
def test_kinds_are_the_original_s(path, name):
    golden, task = load_json(path)["tasks"][name], golden_task(path, name)
    unscored = name.startswith("SimpleSpelling")  # called generative there, but has no score
    assert task.kind == (None if unscored else golden["eval_type"])


@pytest.mark.parametrize(("path", "name"), names())
def test_slices_of_a_task_are_the_original_s(path, name):
    golden = load_json(path)["tasks"][name]
    for key in (k for k in golden if k.startswith("slice_")):
        start, stop, step = (None if b == "None" else int(b) for b in key.split("_")[1:])
        part = golden_task(path, name).view(start, stop, step)
        assert len(part) == golden[key]["length"], key
        assert plain([part[i] for i in range(len(part))]) == golden[key]["conversations"], key


@pytest.mark.parametrize(("path", "name"), names(scored))
def test_scores_and_rewards_are_the_original_s(path, name):
    task = golden_task(path, name)
    for case in (e for e in load_json(path)["evaluations"] if e["task"] == name):
        conversation, answer = task[case["index"]], case["completion"]
        if isinstance(case["evaluate"], str):
            with pytest.raises(ValueError, match="expected one of") as caught:
                task.score(conversation, answer)
            assert case["evaluate"] in {t.__name__ for t in type(caught.value).__mro__}
        else:
            assert task.score(conversation, answer) == case["evaluate"], case
        if case.get("reward") is not None:
            assert task.reward(conversation, answer) == case["reward"], case


@pytest.mark.parametrize("path", TASKS)
def test_the_import_lines_of_a_prompt_are_the_original_s(path):
    for case in load_json(path)["extract_imports"]:
        assert humaneval.imports(case["prompt"]) == case["result"], case


@pytest.mark.parametrize("path", TASKS)
def test_the_code_of_an_answer_is_the_original_s(path):
    for case in load_json(path)["extract_program"]:
        assert humaneval.code(case["completion"]) == case["result"], case


@pytest.mark.parametrize("path", TASKS)
def test_final_numbers_are_the_original_s(path):
    for case in load_json(path)["extract_answer"]:
        assert gsm8k.final_number(case["text"]) == case["result"], case


@pytest.mark.parametrize("path", TASKS)
def test_multiple_choice_questions_are_the_original_s(path):
    for case in load_json(path)["render_mc"]:
        got = choice.question(case["question"], case["letters"], case["choices"])
        assert got == case["result"], case


@pytest.mark.parametrize("path", TASKS)
def test_a_mixture_has_the_original_s_order(path):
    golden, mixture = load_json(path)["mixture"], golden_mixture(path)
    assert [len(part) for part in mixture.tasks] == golden["lengths"]
    assert [list(pair) for pair in mixture.order] == golden["index_map"]
    assert len(mixture) == golden["length"]
    assert plain([mixture[i] for i in range(len(mixture))]) == golden["conversations"]


@pytest.mark.parametrize("path", TASKS)
def test_slices_of_a_mixture_are_the_original_s(path):
    golden = load_json(path)["mixture"]
    for key in (k for k in golden if k.startswith("slice_")):
        start, stop, step = (None if b == "None" else int(b) for b in key.split("_")[1:])
        part = view(golden_mixture(path), start, stop, step)
        assert plain([part[i] for i in range(len(part))]) == golden[key], key


@pytest.mark.parametrize("path", TASKS)
def test_a_mixture_without_a_seed_is_the_original_s_sequence(path):
    golden, chain = load_json(path)["sequence"], golden_sequence(path)
    assert len(chain) == golden["length"]
    assert plain([chain[i] for i in range(len(chain))]) == golden["conversations"]
