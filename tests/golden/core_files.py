"""The questions of golden CORE files, as tasks of ours."""

from pathlib import Path

import pytest

from nanochat_jax.evals.core.bundle import Task
from tests.golden.conftest import files, load_json


def cases() -> list:
    """A parameter (path, number of the result) for each evaluation of the files."""
    return [
        pytest.param(p.values[0], n, id=f"{p.id}/{_name(r)}", marks=p.marks)
        for p in files("core_eval_*.json")
        for n, r in enumerate(load_json(p.values[0])["results"] if p.values[0] else [{}])
    ]


def _name(result: dict) -> str:
    if not result:
        return "absent"
    cut = f"-{result['max_seq_len']}" if result["max_seq_len"] else ""
    return f"{result['task']}-{result['task_meta']['num_fewshot']}shot{cut}"


def task_of(golden: dict) -> Task:
    """The task that a result was made with."""
    meta = golden["task_meta"]
    return Task(
        golden["task"], meta["task_type"], meta["num_fewshot"], meta["continuation_delimiter"],
        0.0, Path("absent.jsonl"),
    )  # fmt: skip
