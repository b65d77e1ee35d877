"""CORE over a bundle of files: accuracy, centered scores and their mean equal the original's."""

import functools

import pytest

from nanochat_jax.evals import core
from tests.golden.conftest import files, load_json
from tests.golden.models import golden_model
from tests.golden.tokenizers import golden_tokenizer

RESULTS = files("core_bundle*results*.json")


def runs() -> list:
    """A parameter (path, run) for each run of the driver; `max_per_task_4` cuts to 4 questions."""
    return [
        pytest.param(p.values[0], run, id=f"{p.id}/{run}", marks=p.marks)
        for p in RESULTS
        for run in (load_json(p.values[0])["results"] if p.values[0] else ["absent"])
    ]


def folder_of(path):
    """The bundle that a file of results belongs to; the only one, if none has its name."""
    named = path.with_name(path.stem.replace("_results", ""))
    return named if named.is_dir() else next(p for p in path.parent.glob("core_bundle*/"))


@functools.cache
def ours(path, run):
    golden = load_json(path)
    return core.evaluate(
        golden_model(path.parent / golden["model"]), golden_tokenizer(path.parent),
        folder_of(path), max_per_task=int(run.rpartition("_")[2]),
    )  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(("path", "run"), runs())
def test_accuracies_are_the_same(path, run):
    got = {label: task.accuracy for label, task in ours(path, run).tasks.items()}
    assert got == pytest.approx(load_json(path)["results"][run]["results"])


@pytest.mark.slow
@pytest.mark.parametrize(("path", "run"), runs())
def test_centered_scores_are_the_same(path, run):
    got = {label: task.centered for label, task in ours(path, run).tasks.items()}
    assert got == pytest.approx(load_json(path)["results"][run]["centered_results"], abs=1e-6)


@pytest.mark.parametrize(("path", "run"), runs())
def test_the_core_metric_is_the_same(path, run):
    want = load_json(path)["results"][run]["core_metric"]
    assert ours(path, run).metric == pytest.approx(want, abs=1e-6)
