"""HumanEval answers get the marks that each era's own sandbox gave them."""

import functools

import pytest

from nanochat_jax.evals import sandbox
from nanochat_jax.tasks import humaneval
from tests.evals.programs import run_many
from tests.golden.conftest import era_of, files, load_json


@pytest.mark.slow
@pytest.mark.parametrize("path", files("tasks_*.json"))
def test_programs_end_as_in_the_original(path):
    golden = load_json(path)
    cases = [e for e in golden["evaluations"] if e["task"].split("/")[0] == "HumanEval"]
    given = {name: golden["tasks"][name]["rows"] for name in {e["task"] for e in cases}}
    tasks = {name: humaneval.task(rows) for name, rows in given.items()}
    programs = [humaneval.program(tasks[e["task"]][e["index"]], e["completion"]) for e in cases]
    results = run_many(programs, checks=True, rules=era_of(path))
    assert cases and [r.success for r in results] == [e["evaluate"] for e in cases]


@pytest.mark.parametrize("path", files("tasks_*.json"))
def test_the_task_marks_by_the_sandbox(path):
    golden, era = load_json(path), era_of(path)
    execute = functools.partial(sandbox.execute, rules=era)
    task = humaneval.task(golden["tasks"]["HumanEval"]["rows"], execute)
    cases = [e for e in golden["evaluations"] if e["task"] == "HumanEval"][:9]
    for case in cases:
        got = task.score(task[case["index"]], case["completion"])
        assert got == float(case["evaluate"]), case
