"""CORE: how well a base model answers 22 tasks from a few solved examples.

Each answer is judged by the model's own losses, never by what it writes: a base model follows no
instruction, but the likelier of two texts can be read off even a small one. CORE is the mean over
the tasks of accuracy above guessing. The same numbers as the original's, from many questions a
forward pass. Source: nanochat `nanochat/core_eval.py`, `scripts/base_eval.py`; the metric: DCLM,
arXiv:2406.11794.
"""

import collections
import concurrent.futures
import dataclasses
import functools
import itertools
import logging
import os
import pathlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from jax.sharding import Mesh

from nanochat_jax.evals import answers_log, placing
from nanochat_jax.evals.answers_log import AnswersLog
from nanochat_jax.evals.core import bundle, prompts, result, scoring, shapes
from nanochat_jax.evals.core.bundle import CoreTask, Item
from nanochat_jax.evals.core.prompts import Example
from nanochat_jax.evals.core.result import CoreResult, CoreTaskResult, notes, write_csv
from nanochat_jax.models.gpt import Model
from nanochat_jax.tokenizer import Tokenizer

__all__ = ["CoreResult", "CoreTaskResult", "evaluate", "notes", "write_csv"]

log = logging.getLogger(__name__)

Question = tuple[int, int]  # number of a task, number of its row

# Questions that are made into ids together: enough to fill batches of one shape, few enough that
# the first batch starts soon and memory stays small.
WINDOW = 512


def evaluate(
    model: Model, tokenizer: Tokenizer, bundle_dir: str | os.PathLike[str], *,
    max_per_task: int = -1, max_seq_len: int | None = None, mesh: Mesh | None = None,
    batch_tokens: int | None = None, answers_dir: str | os.PathLike[str] | None = None,
    few_shapes: bool | None = None, blind: bool = False,
) -> CoreResult:  # fmt: skip
    """CORE of a model, over all tasks of a bundle whose files are there.

    Args:
        max_per_task: questions of each task (-1: all); the solved examples come from them too.
        max_seq_len: the last so many tokens of a prompt are read; None: ten contexts, beyond which
            the original stops.
        mesh: over which batches are split (None: the one that holds the parameters, if any).
        batch_tokens: tokens of a forward pass on each device.
        answers_dir: `<task>.jsonl` with every graded question; what is there is not scored again.
            One process writes there.
        few_shapes: whether questions are padded to few shapes, which are compiled side by side
            before the first batch (None: on accelerators).
        blind: multiple choice alone, each question without its text; solved examples keep theirs.

    Raises:
        FileNotFoundError: no bundle there, or none of its files.
        ValueError: a broken bundle, by file and line; `max_seq_len` below 2.
    """
    limit = placing.longest(model) if max_seq_len is None else max_seq_len
    if limit < 2:
        raise ValueError(f"max_seq_len is {limit}; a token is predicted from at least one other")
    tasks, skipped = _tasks(pathlib.Path(bundle_dir), max_per_task)
    if blind:
        tasks = [(task, items) for task, items in tasks if task.kind == "multiple_choice"]
    asked = {"blind": True} if blind else {}
    model, mesh = placing.on_mesh(model, mesh)
    opened = answers_log.logs_in(answers_dir, model, tokenizer)
    runs = [
        _CoreRun(task, items, opened(
            task.label, items, shots=task.shots, delimiter=task.delimiter, max_seq_len=limit,
            baseline=task.baseline, **asked,
        ))
        for task, items in tasks
    ]  # fmt: skip
    total, before = sum(len(r.items) for r in runs), sum(len(r.log.grades) for r in runs)
    with answers_log.progress_bar("CORE", total, before) as bar:
        few = placing.few_shapes() if few_shapes is None else few_shapes
        ready = functools.partial(_questions, runs, tokenizer, limit, blind)
        size = batch_tokens or placing.batch_tokens()
        for scores in _scores(model, runs, ready, few, mesh=mesh, batch_tokens=size):
            _keep(runs, scores)
            bar.update(len(scores))
    done = CoreResult({run.task.label: run.result() for run in runs}, skipped)
    _warn(done, [run.task for run in runs])
    return done


Rows = tuple[CoreTask, list[Item]]


def _tasks(folder: pathlib.Path, max_per_task: int) -> tuple[list[Rows], dict[str, str]]:
    """(tasks with their rows, label -> why there are none)."""
    found, skipped = [], {}
    for task in bundle.read(folder):
        if bundle.file_of(task) is None:
            skipped[task.label] = f"no file {task.path}"
        elif items := bundle.rows(task, max_per_task):
            found.append((task, items))
        else:
            skipped[task.label] = f"no rows in {task.path}"
    if not found:
        raise FileNotFoundError(f"{folder} names {len(skipped)} tasks, but has the file of none")
    return found, skipped


@dataclasses.dataclass(frozen=True)
class _CoreRun:
    """A task, its rows, and the grades they have so far."""

    task: CoreTask
    items: list[Item]
    log: AnswersLog

    def result(self) -> CoreTaskResult:
        """The task's score, from the grades of all its rows."""
        n, count = len(self.items), lambda key: sum(g[key] for g in self.log.grades.values())
        return CoreTaskResult(
            count("correct"), n, self.task.baseline, min(self.task.shots, n - 1),
            count("cropped"), count("mended"),
            [bool(self.log.grades[i]["correct"]) for i in range(n)],
        )  # fmt: skip


Questions = dict[Question, Example]
Chosen = Sequence[tuple[int, Sequence[int]]]  # numbers of tasks, each with numbers of rows


def _scores(
    model: Model, runs: Sequence[_CoreRun], ready: Callable[[Chosen], Questions], few: bool,
    **settings: Any,
) -> Iterator[scoring.Scored]:  # fmt: skip
    """Scores of all questions without a grade, batch by batch, in `few` shapes or as many as fit;
    `settings` as of `scoring.score`."""
    todo = [run.log.todo(len(run.items)) for run in runs]
    count = shapes.SAMPLE if few else 0
    sample = ready([(n, rows[:count]) for n, rows in enumerate(todo)])
    weights = [len(rows) / max(1, min(len(rows), count)) for rows in todo]
    groups = (
        (g, weights[k[0]]) for k, example in sample.items() for g in shapes.groups(k, example)
    )
    rest = (
        [(n, rows[start : start + WINDOW])]
        for n, rows in enumerate(todo)
        for start in range(count, len(rows), WINDOW)
    )
    windows = itertools.chain([sample], _ahead(map(ready, rest)))
    yield from scoring.score(model, windows, planned=shapes.plan(groups), **settings)


def _questions(
    runs: Sequence[_CoreRun], tokenizer: Tokenizer, limit: int, blind: bool, chosen: Chosen
) -> Questions:
    """The chosen questions, ready for the model."""
    found: Questions = {}
    for n, rows in chosen:
        task, items = runs[n].task, runs[n].items
        examples = prompts.examples(task, items, rows, tokenizer, limit, blind)
        found |= {(n, i): example for i, example in zip(rows, examples, strict=True)}
    return found


def _keep(runs: Sequence[_CoreRun], scores: scoring.Scored) -> None:
    """Grades a batch's questions and keeps the grades."""
    grades: dict[int, dict[int, Any]] = collections.defaultdict(dict)
    for (n, i), (example, found) in scores.items():
        grades[n][i] = result.grade(runs[n].task, example, found)
    for n, some in grades.items():
        runs[n].log.add(some)


def _ahead(things: Iterator[Any]) -> Iterator[Any]:
    """The same things; the next one is being made while one is in use."""
    # Tokenizing runs on the host while the device scores: without this each waits for the other.
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        coming = pool.submit(next, things, None)
        while (thing := coming.result()) is not None:
            coming = pool.submit(next, things, None)
            yield thing


def _warn(done: CoreResult, tasks: Sequence[CoreTask]) -> None:
    """Says what was not as the original would have it."""
    for label, why in done.skipped.items():
        log.warning("CORE without %s: %s", label, why)
    for task in tasks:
        found = done.tasks[task.label]
        # The original stops here; such a score is not comparable, and the reader should know.
        if found.shots < task.shots:
            why = "%s: %d solved examples instead of %d, for it has %d rows"
            log.warning(why, task.label, found.shots, task.shots, found.n)
    if done.cropped:
        log.warning("%d prompts were cut at their beginning to fit", done.cropped)
