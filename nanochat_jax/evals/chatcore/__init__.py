"""ChatCORE: how well an assistant answers multiple choice, sums, programs and spelling.

Letters by their logits, everything else in writing with the tool; the same marks as the
original's, from many problems at a time. Source: nanochat `scripts/chat_eval.py`.
"""

import dataclasses
import logging
import os
import pathlib
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from jax.sharding import Mesh

from nanochat_jax.evals import audit, categorical, placing, progress
from nanochat_jax.evals.audit import Audit
from nanochat_jax.evals.chatcore.exams import BASELINES
from nanochat_jax.evals.chatcore.result import ChatResult, TaskResult, table
from nanochat_jax.evals.generative import Answered, Sampling, Writers, answer, pass_at_k
from nanochat_jax.models.gpt import Model
from nanochat_jax.tasks import Task, View
from nanochat_jax.tasks.mixture import Conversation
from nanochat_jax.tokenizer import Tokenizer

__all__ = ["BASELINES", "ChatResult", "Sampling", "TaskResult", "evaluate", "table"]

log = logging.getLogger(__name__)

ROUND = 128  # tokens: engines of nearly one length compile the same programs
Marks = Iterator[dict[int, dict[str, Any]]]  # problem -> mark, a few at a time


def evaluate(
    model: Model,
    tokenizer: Tokenizer,
    tasks: Mapping[str, Task],
    *,
    skipped: Mapping[str, str] | None = None,
    max_problems: int = -1,
    sampling: Sampling | None = None,
    batch_size: int | None = None,
    mesh: Mesh | None = None,
    audit_dir: str | os.PathLike[str] | None = None,
    writers: Writers | None = None,
) -> ChatResult:
    """The scores of a model on tasks of `BASELINES`, by name.

    Args:
        skipped: tasks that could not be had, and why; told with the result.
        max_problems: of each task, the first so many (-1: all).
        sampling: how answers are written (None: greedily, 512 tokens at most).
        batch_size: prompts of a forward pass, and answers written at once, on each device (None:
            as many as suit it).
        mesh: over which problems are split (None: the one that holds the parameters, if any).
        audit_dir: `<task>.jsonl` with every marked problem; what is there is not asked again.
        writers: engines of this model that are there already; see `engines`.

    Raises:
        ValueError: no tasks, or one without problems.
    """
    begun = time.perf_counter()
    sampling = sampling or Sampling()
    if not tasks:
        raise ValueError("no task to score: name a folder of task files with --task-data DIR")
    if sampling.temperature == 0 and sampling.num_samples > 1:
        log.warning("temperature 0 writes every answer %d times: give -t", sampling.num_samples)
    model, mesh = placing.on_mesh(model, mesh)
    papers = _papers(tasks, max_problems, sampling, audit_dir, model, tokenizer)
    waiting = [p.rest for p in papers if p.task.kind == "generative"]
    writers = writers or engines(model, tokenizer, waiting, sampling, batch_size, mesh)
    for paper in papers:
        with progress.bar(paper.name, len(paper.task), len(paper.kept.done)) as bar:
            if paper.task.kind == "generative":
                marks = _written(paper, writers, sampling)
            else:
                marks = _chosen(paper, model, tokenizer, batch_size)
            for some in marks:
                paper.kept.add(some)
                bar.update(len(some))
    found = {paper.name: paper.result(sampling) for paper in papers}
    return ChatResult(found, skipped or {}, time.perf_counter() - begun)


@dataclasses.dataclass(frozen=True)
class _Paper:
    """A task, and the marks that its problems have so far."""

    name: str
    task: Task
    kept: Audit

    @property
    def todo(self) -> list[int]:
        """The problems without a mark."""
        return [i for i in range(len(self.task)) if i not in self.kept.done]

    @property
    def rest(self) -> list[Conversation]:
        return [self.task[i] for i in self.todo]

    def result(self, sampling: Sampling) -> TaskResult:
        n, marks = len(self.task), [self.kept.done[i] for i in range(len(self.task))]
        count = lambda key: sum(m[key] for m in marks)
        correct, baseline = count("correct"), BASELINES[self.name]
        if self.task.kind == "categorical":
            return TaskResult(correct, n, baseline, cropped=count("cropped"))
        samples = sampling.num_samples
        ks = [k for k in (1 << i for i in range(samples.bit_length())) if k <= samples]
        passes = {k: sum(pass_at_k(m["right"], samples, k) for m in marks) / n for k in ks}
        return TaskResult(
            correct, n, baseline, samples, passes, count("cropped"), count("unfinished")
        )


def _papers(
    tasks: Mapping[str, Task], max_problems: int, sampling: Sampling,
    audit_dir: str | os.PathLike[str] | None, model: Model, tokenizer: Tokenizer,
) -> list[_Paper]:  # fmt: skip
    """The tasks with the marks that are kept of them."""
    of_model = audit.of_model(model, tokenizer) if audit_dir is not None else {}
    papers = []
    for name, task in tasks.items():
        task = View(task, stop=max_problems) if max_problems > 0 else task
        if not len(task):
            raise ValueError(f"{name} has no problems")
        if audit_dir is None:
            papers.append(_Paper(name, task, Audit(None, "", {})))
            continue
        file, first = name, {"task": name, "questions": len(task)}
        first |= {"rows": audit.rows_digest([task[i] for i in range(len(task))])} | of_model
        if task.kind == "generative":
            s = sampling
            file += f"_n{s.num_samples}_t{s.temperature:g}_k{s.top_k}_m{s.max_new_tokens}"
            first |= dataclasses.asdict(sampling)
        papers.append(_Paper(name, task, Audit(pathlib.Path(audit_dir), file, first)))
    return papers


def engines(
    model: Model, tokenizer: Tokenizer, tasks: Sequence[Sequence[Conversation]],
    sampling: Sampling, slots: int | None = None, mesh: Mesh | None = None,
) -> Writers | None:  # fmt: skip
    """Engines with room for the longest prompt of all tasks and its answer; None: no prompts."""
    prompts = (tokenizer.render_for_completion(task[i]) for task in tasks for i in range(len(task)))
    most = max(map(len, prompts), default=0)
    if not most:
        return None
    need = -(-(most + sampling.max_new_tokens) // ROUND) * ROUND
    length = min(need, placing.longest(model))
    return Writers(model, tokenizer, max_len=length, slots=slots, mesh=mesh)


def _chosen(paper: _Paper, model: Model, tokenizer: Tokenizer, rows: int | None) -> Marks:
    """Marks by the letters' logits."""
    limit, cropped = placing.longest(model), set()

    def asked() -> Iterator[categorical.Asked]:
        for i in paper.todo:
            one = categorical.question(tokenizer, i, paper.task[i])
            if len(one.prompt) > limit:
                cropped.add(i)
            yield one._replace(prompt=one.prompt[-limit:])

    pad = tokenizer.get_bos_token_id()
    for found in categorical.option_logits(model, asked(), pad=pad, rows=rows):
        marks = {}
        for i, logits in found.items():
            conversation = paper.task[i]
            letter, _ = categorical.likeliest(conversation, logits)
            marks[i] = {
                "correct": paper.task.score(conversation, letter) > 0, "letter": letter,
                "logits": [round(float(x), 6) for x in logits], "cropped": i in cropped,
            } | _of(conversation)  # fmt: skip
        yield marks


def _written(paper: _Paper, writers: Writers | None, sampling: Sampling) -> Marks:
    """Marks of written answers."""
    if writers is None:
        return
    for got in answer(writers, paper.task, paper.todo, sampling):
        yield {got.problem: _mark(got) | _of(paper.task[got.problem])}


def _mark(got: Answered) -> dict[str, Any]:
    """What is kept of a problem's answers."""
    return {
        "correct": got.right > 0, "right": got.right, "marks": [a.mark for a in got.answers],
        "answers": [a.text for a in got.answers], "tokens": [len(a.tokens) for a in got.answers],
        "unfinished": sum(a.terminal is None for a in got.answers), "cropped": got.cropped,
    }  # fmt: skip


def _of(conversation: Conversation) -> dict[str, str]:
    """The question as it was put, and the answer that was wanted."""
    *_, asked, wanted = conversation["messages"]
    parts = wanted["content"]
    text = parts if isinstance(parts, str) else parts[-1]["text"]
    return {"asked": asked["content"], "wanted": text}
