"""The questions of golden CORE files, as tasks of ours."""

import functools
from pathlib import Path

import pytest

from nanochat_jax.evals.core import prompts, result, scoring
from nanochat_jax.evals.core.bundle import CoreTask
from tests.golden.conftest import files, load_json
from tests.golden.models import golden_model
from tests.golden.tokenizers import golden_tokenizer

UNCUT = 10**9


def cases() -> list:
    """A parameter (path, number of the result) for each evaluation of the files."""
    return [
        pytest.param(p.values[0], n, id=f"{p.id}/{_name(r)}", marks=p.marks)
        for p in files("core_eval_*.json")
        for n, r in enumerate(load_json(p.values[0])["results"] if p.values[0] else [{}])
    ]


def _name(golden: dict) -> str:
    if not golden:
        return "absent"
    cut = f"-cut{golden['max_seq_len']}" if golden["max_seq_len"] else ""
    return f"{golden['task']}-{golden['task_meta']['num_fewshot']}shot{cut}"


def task_of(golden: dict) -> CoreTask:
    """The task that a result was made with."""
    meta = golden["task_meta"]
    return CoreTask(
        golden["task"], meta["task_type"], meta["num_fewshot"], meta["continuation_delimiter"],
        0.0, Path("absent.jsonl"),
    )  # fmt: skip


def examples_of(path: Path, golden: dict) -> list[prompts.Example]:
    """Our examples of a result, in the order of its own."""
    items = load_json(path)["datasets"][golden["task"]]
    chosen = [e["idx"] for e in golden["examples"]]
    tokenizer, limit = golden_tokenizer(path.parent), golden["max_seq_len"] or UNCUT
    return prompts.examples(task_of(golden), items, chosen, tokenizer, limit)


@functools.cache
def scored(path: Path) -> list[list[tuple[list[scoring.RowScore], dict]]]:
    """(scores, grade) of each example of each result; all in one go, for the fewest shapes."""
    golden = load_json(path)
    results, model = golden["results"], golden_model(path.parent / golden["model"])
    examples = [(n, e) for n, r in enumerate(results) for e in examples_of(path, r)]
    found: dict = {}
    for some in scoring.score(model, [dict(enumerate(e for _, e in examples))], batch_tokens=4096):
        found |= {i: scores for i, (_, scores) in some.items()}
    marked: list[list] = [[] for _ in results]
    for i, (n, example) in enumerate(examples):
        grade = result.grade(task_of(results[n]), example, found[i])
        marked[n].append((found[i], grade))
    return marked
