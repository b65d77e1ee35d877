"""CORE: how well a base model answers 22 tasks from a few solved examples.

The same numbers as the original's, from many questions a forward pass. Source: nanochat
`nanochat/core_eval.py`, `scripts/base_eval.py`; the metric: DCLM, arXiv:2406.11794.
"""

import collections
import concurrent.futures
import dataclasses
import logging
import os
import pathlib
import time
from collections.abc import Iterator, Sequence
from typing import Any

from jax.sharding import Mesh

from nanochat_jax.evals import audit, placing, progress
from nanochat_jax.evals.audit import Audit
from nanochat_jax.evals.core import bundle, prompts, result, scoring
from nanochat_jax.evals.core.bundle import Item, Task
from nanochat_jax.evals.core.prompts import Example
from nanochat_jax.evals.core.result import CoreResult, TaskResult, table, write_csv
from nanochat_jax.models.gpt import Model
from nanochat_jax.tokenizer import Tokenizer

__all__ = ["CoreResult", "TaskResult", "evaluate", "table", "write_csv"]

log = logging.getLogger(__name__)

Question = tuple[int, int]  # number of a task, number of its row

WINDOW = 512  # questions that are made into ids together


def evaluate(
    model: Model,
    tokenizer: Tokenizer,
    bundle_dir: str | os.PathLike[str],
    *,
    max_per_task: int = -1,
    max_seq_len: int | None = None,
    mesh: Mesh | None = None,
    batch_tokens: int | None = None,
    audit_dir: str | os.PathLike[str] | None = None,
) -> CoreResult:
    """CORE of a model, over all tasks of a bundle whose files are there.

    Args:
        max_per_task: questions of each task (-1: all); the solved examples come from them too.
        max_seq_len: the last so many tokens of a prompt are read; None: ten contexts, beyond which
            the original stops.
        mesh: over which batches are split (None: the one that holds the parameters, if any).
        batch_tokens: tokens of a forward pass on each device.
        audit_dir: `<task>.jsonl` with every marked question; what is there is not asked again.
            One process writes there.

    Raises:
        FileNotFoundError: no bundle there, or none of its files.
        ValueError: a broken bundle, by file and line; `max_seq_len` below 2.
    """
    begun = time.perf_counter()
    limit = placing.longest(model) if max_seq_len is None else max_seq_len
    if limit < 2:
        raise ValueError(f"max_seq_len is {limit}; a token is foretold from at least one other")
    asked, skipped = _tasks(pathlib.Path(bundle_dir), max_per_task)
    model, mesh = placing.on_mesh(model, mesh)
    papers = _papers(asked, audit_dir, model, tokenizer, limit)
    total, before = sum(len(p.items) for p in papers), sum(len(p.kept.done) for p in papers)
    with progress.bar("CORE", total, before) as bar:
        windows = _ahead(_windows(papers, tokenizer, limit))
        size = batch_tokens or placing.batch_tokens()
        for scores in scoring.score(model, windows, mesh=mesh, batch_tokens=size):
            _mark(papers, scores)
            bar.update(len(scores))
    found = {paper.task.label: paper.result() for paper in papers}
    done = CoreResult(found, skipped, time.perf_counter() - begun)
    _warn(done, [paper.task for paper in papers])
    return done


def _tasks(
    folder: pathlib.Path, max_per_task: int
) -> tuple[list[tuple[Task, list[Item]]], dict[str, str]]:
    """(tasks with their rows, label -> why there are none)."""
    asked, skipped = [], {}
    for task in bundle.read(folder):
        if bundle.file_of(task) is None:
            skipped[task.label] = f"no file {task.path}"
        elif items := bundle.rows(task, max_per_task):
            asked.append((task, items))
        else:
            skipped[task.label] = f"no rows in {task.path}"
    if not asked:
        raise FileNotFoundError(f"{folder} names {len(skipped)} tasks, but has the file of none")
    return asked, skipped


@dataclasses.dataclass(frozen=True)
class _Paper:
    """A task, its rows, and the marks they have so far."""

    task: Task
    items: list[Item]
    kept: Audit

    def result(self) -> TaskResult:
        marks = [self.kept.done[i] for i in range(len(self.items))]
        return result.summed(self.task, len(self.items), marks)


def _papers(
    asked: Sequence[tuple[Task, list[Item]]], audit_dir: str | os.PathLike[str] | None,
    model: Model, tokenizer: Tokenizer, limit: int,
) -> list[_Paper]:  # fmt: skip
    """The tasks with the marks that are kept of them."""
    if audit_dir is None:
        return [_Paper(task, items, Audit(None, "", {})) for task, items in asked]
    of_model, papers = audit.of_model(model, tokenizer), []
    for task, items in asked:
        first = {
            "task": task.label, "questions": len(items), "rows": audit.rows_digest(items),
            "shots": task.shots, "delimiter": task.delimiter, "max_seq_len": limit,
        }  # fmt: skip
        kept = Audit(pathlib.Path(audit_dir), task.label, first | of_model)
        papers.append(_Paper(task, items, kept))
    return papers


def _windows(
    papers: Sequence[_Paper], tokenizer: Tokenizer, limit: int
) -> Iterator[dict[Question, Example]]:
    """All questions without a mark, `WINDOW` at a time."""
    for n, paper in enumerate(papers):
        todo = [i for i in range(len(paper.items)) if i not in paper.kept.done]
        for start in range(0, len(todo), WINDOW):
            some = todo[start : start + WINDOW]
            ready = prompts.examples(paper.task, paper.items, some, tokenizer, limit)
            yield {(n, i): example for i, example in zip(some, ready, strict=True)}


def _mark(papers: Sequence[_Paper], scores: scoring.Scored) -> None:
    """Keeps the marks of a batch."""
    marks: dict[int, dict[int, Any]] = collections.defaultdict(dict)
    for (n, i), (example, found) in scores.items():
        marks[n][i] = result.mark(papers[n].task, example, found)
    for n, some in marks.items():
        papers[n].kept.add(some)


def _ahead(things: Iterator[Any]) -> Iterator[Any]:
    """The same things; the next one is being made while one is in use."""
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        coming = pool.submit(next, things, None)
        while (thing := coming.result()) is not None:
            coming = pool.submit(next, things, None)
            yield thing


def _warn(done: CoreResult, tasks: Sequence[Task]) -> None:
    """Says what was not as the original would have it."""
    for label, why in done.skipped.items():
        log.warning("CORE without %s: %s", label, why)
    for task in tasks:
        found = done.tasks[task.label]
        if found.shots < task.shots:
            log.warning(
                "%s: %d solved examples instead of %d, for it has %d rows",
                task.label, found.shots, task.shots, found.n,
            )  # fmt: skip
    if done.cropped:
        log.warning("%d prompts were cut at their beginning to fit", done.cropped)
