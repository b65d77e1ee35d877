"""CORE: how well a base model answers 22 tasks from a few solved examples.

The same numbers as the original's, from many questions a forward pass. Source: nanochat
`nanochat/core_eval.py`, `scripts/base_eval.py`; the metric: DCLM, arXiv:2406.11794.
"""

import concurrent.futures
import dataclasses
import logging
import os
import pathlib
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import jax
from jax.sharding import Mesh
from tqdm import tqdm

from nanochat_jax import sharding
from nanochat_jax.evals.core import audit, bundle, prompts, result, scoring
from nanochat_jax.evals.core.audit import Audit
from nanochat_jax.evals.core.bundle import Item, Task
from nanochat_jax.evals.core.prompts import Example
from nanochat_jax.evals.core.result import CoreResult, TaskResult, write_csv
from nanochat_jax.models.gpt import Model
from nanochat_jax.tokenizer import Tokenizer

__all__ = ["CoreResult", "TaskResult", "evaluate", "write_csv"]

log = logging.getLogger(__name__)

# The original's rotary tables are this many contexts long; a longer prompt stops it.
CONTEXTS = 10
BATCH_TOKENS = {"cpu": 4096}  # elsewhere:
BATCH_TOKENS_ELSEWHERE = 16384
ENCODED_AT_ONCE = 256  # questions; their texts are many times their ids


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

    Raises:
        FileNotFoundError: no bundle there, or none of its files.
        ValueError: a broken row, by file and line.
    """
    begun = time.perf_counter()
    asked, skipped = _tasks(pathlib.Path(bundle_dir), max_per_task)
    model, mesh = _on_mesh(model, mesh)
    exam = _Exam(
        model, tokenizer, mesh, max_seq_len or CONTEXTS * model.cfg.sequence_len,
        batch_tokens or BATCH_TOKENS.get(jax.default_backend(), BATCH_TOKENS_ELSEWHERE),
        pathlib.Path(audit_dir) if audit_dir is not None else None,
    )  # fmt: skip
    found = exam.run(asked)
    done = CoreResult(found, skipped, time.perf_counter() - begun)
    _warn(done, {task.label: task for task, _ in asked})
    return done


def _tasks(
    folder: pathlib.Path, max_per_task: int
) -> tuple[list[tuple[Task, list[Item]]], dict[str, str]]:
    """(tasks with their rows, label -> why there are none)."""
    asked, skipped = [], {}
    for task in bundle.read(folder):
        if bundle.file_of(task) is None:
            skipped[task.label] = f"no file {task.path.relative_to(folder)}"
        elif items := bundle.rows(task, max_per_task):
            asked.append((task, items))
        else:
            skipped[task.label] = f"no rows in {task.path.relative_to(folder)}"
    if not asked:
        raise FileNotFoundError(f"{folder} names {len(skipped)} tasks, but has the file of none")
    return asked, skipped


def _on_mesh(model: Model, mesh: Mesh | None) -> tuple[Model, Mesh | None]:
    """The model with its parameters on the mesh; a mesh of one device is none."""
    here = getattr(jax.tree.leaves(model.params)[0], "sharding", None)
    held = getattr(here, "mesh", None)
    mesh = mesh or held
    if mesh is None or mesh.size == 1:
        return model, None
    if mesh != held:
        params = jax.device_put(model.params, sharding.shardings(mesh, model.params))
        model = dataclasses.replace(model, params=params)
    return model, mesh


@dataclasses.dataclass(frozen=True)
class _Exam:
    """One evaluation: the model and how it is asked."""

    model: Model
    tokenizer: Tokenizer
    mesh: Mesh | None
    limit: int
    batch_tokens: int
    folder: pathlib.Path | None

    def run(self, asked: Sequence[tuple[Task, list[Item]]]) -> dict[str, TaskResult]:
        weights = audit.weights_digest(self.model) if self.folder else ""
        found = {}
        with _bar(sum(len(items) for _, items in asked)) as bar:
            # While the devices score a task the next one is tokenized.
            for task, items, kept, examples in _ahead(lambda a: self._ready(weights, *a), asked):
                bar.set_description(task.label)
                bar.update(len(kept.done))
                self._score(task, kept, examples, bar)
                marks = [kept.done[i] for i in range(len(items))]
                found[task.label] = result.summed(task, len(items), marks)
        return found

    def _ready(
        self, weights: str, task: Task, items: list[Item]
    ) -> tuple[Task, list[Item], Audit, dict[int, Example]]:
        """A task with the questions that are still to be asked."""
        first = audit.settings(task, items, weights, self.model, self.tokenizer, self.limit)
        kept = Audit(self.folder, first)
        todo = [i for i in range(len(items)) if i not in kept.done]
        examples: dict[int, Example] = {}
        for start in range(0, len(todo), ENCODED_AT_ONCE):
            some = todo[start : start + ENCODED_AT_ONCE]
            ready = prompts.examples(task, items, some, self.tokenizer, self.limit)
            examples |= zip(some, ready, strict=True)
        return task, items, kept, examples

    def _score(self, task: Task, kept: Audit, examples: dict[int, Example], bar: tqdm) -> None:
        """Asks the questions and keeps their marks, batch by batch."""
        for scores in scoring.score(
            self.model, examples, mesh=self.mesh, batch_tokens=self.batch_tokens
        ):
            kept.add({i: result.mark(task, examples[i], s) for i, s in scores.items()})
            bar.update(len(scores))


def _ahead(make: Callable[[Any], Any], things: Iterable[Any]) -> Iterator[Any]:
    """`make` of each thing; the next one is being made while one is in use."""
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        last = None
        for thing in things:
            coming = pool.submit(make, thing)
            if last is not None:
                yield last.result()
            last = coming
        if last is not None:
            yield last.result()


def _bar(total: int) -> tqdm:
    calm = {} if sys.stderr.isatty() else {"mininterval": 15, "ascii": True, "ncols": 100}
    return tqdm(total=total, unit="question", **calm)


def _warn(done: CoreResult, tasks: dict[str, Task]) -> None:
    """Says what was not as the original would have it."""
    for label, why in done.skipped.items():
        log.warning("CORE without %s: %s", label, why)
    for label, task in done.tasks.items():
        if task.shots < tasks[label].shots:
            log.warning(
                "%s: %d solved examples instead of %d, for it has %d rows",
                label, task.shots, tasks[label].shots, task.n,
            )  # fmt: skip
    if done.cropped:
        log.warning("%d prompts were cut at their beginning to fit", done.cropped)
