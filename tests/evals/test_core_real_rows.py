"""The published bundle, where a copy lies beside the repository: every task can be asked."""

import itertools

import numpy as np
import pytest

from nanochat_jax.evals.core import batches, bundle, prompts, shapes
from nanochat_jax.evals.placing import ACCELERATOR_TOKENS
from nanochat_jax.tokenizer import Tokenizer
from tests import needs
from tests.evals.core_bundles import TOKENIZER

BUNDLE = needs.TASK_DATA / "core_eval"
pytestmark = needs.task_data


@pytest.fixture(scope="module")
def tasks():
    return {task.label: task for task in bundle.read(BUNDLE)}


def test_all_22_tasks_are_named_and_what_has_no_file_is_known(tasks):
    assert len(tasks) == 22
    assert {label for label, task in tasks.items() if bundle.file_of(task) is None} <= {"coqa"}


def test_every_task_s_questions_can_be_scored(tasks):
    for label, task in tasks.items():
        if bundle.file_of(task) is None:
            continue
        items = bundle.rows(task, -1)
        assert len(items) > task.shots + 20, label
        chosen = [0, len(items) // 2, len(items) - 1]
        for i, example in zip(
            chosen, prompts.examples(task, items, chosen, TOKENIZER, 10**9), strict=True
        ):
            assert not example.cropped and not example.mended, (label, i)
            assert all(0 < row.start < row.end <= len(row.ids) for row in example.rows), (label, i)
            _shots_come_first(task, items, i, example)


def _shots_come_first(task, items, i, example):
    """The prompt holds the drawn examples in order; of an option its own end is scored."""
    text = TOKENIZER.decode(example.rows[example.gold].ids.tolist())
    at = [text.index(prompts._solved(task, items[j])) for j in _shots(task, items, i)]
    assert at == sorted(at)
    if task.kind == "multiple_choice":
        row = example.rows[example.gold]
        scored = TOKENIZER.decode(row.ids[row.start :].tolist())
        assert items[i]["choices"][items[i]["gold"]].endswith(scored.strip())
        assert np.array_equal(row.ids[: row.start], example.rows[0].ids[: row.start])


def _shots(task, items, i):
    return prompts.shot_indices(i, len(items), task.shots)


@pytest.mark.slow
def test_all_tasks_go_in_at_most_ten_shapes_on_an_accelerator(tasks):
    """On one device and on eight, 120 questions of a task, the shapes planned from some of each."""
    rows = {task: bundle.rows(task, 120) for task in tasks.values() if bundle.file_of(task)}
    # Prompts must have about the lengths that they have in tokens of a real vocabulary.
    tokenizer = Tokenizer.train((str(item) for items in rows.values() for item in items), 8192)
    questions = []
    for task, items in rows.items():
        examples = prompts.examples(task, items, range(len(items)), tokenizer, 20480)
        questions.append([shapes.groups((task.label, i), e) for i, e in enumerate(examples)])
    planned = shapes.plan(
        (g, 1.0) for some in questions for gs in some[: shapes.SAMPLE] for g in gs
    )
    ahead = {batches.shape_of(kind, ACCELERATOR_TOKENS) for kind in planned}
    for devices in (1, 8):
        windows = (itertools.chain(*some) for some in questions)
        kind = shapes.chooser(planned)
        made = batches.batches(windows, ACCELERATOR_TOKENS, devices, kind, planned)
        assert len({batch.shape for batch in made} | ahead) <= 10
