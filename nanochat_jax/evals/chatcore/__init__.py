"""ChatCORE: how well an assistant answers multiple choice, sums, programs and spelling.

Letters by their logits, everything else in writing with the tool; the same grades as the
original's, from many problems at a time. ChatCORE is the original's own metric, CORE's centered
mean taken over six chat tasks, so that stages after pretraining can be compared by one number.
Source: nanochat `scripts/chat_eval.py`.
"""

import dataclasses
import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from jax.sharding import Mesh

from nanochat_jax.evals import answers_log, categorical, generative, placing
from nanochat_jax.evals.answers_log import AnswersLog
from nanochat_jax.evals.chatcore.catalog import BASELINES
from nanochat_jax.evals.chatcore.result import ChatResult, ChatTaskResult, notes
from nanochat_jax.evals.generative import EnginePool, SamplingParams
from nanochat_jax.models.gpt import Model
from nanochat_jax.results import Exchange
from nanochat_jax.tasks import Conversation, Task
from nanochat_jax.tokenizer import Tokenizer

__all__ = ["BASELINES", "ChatResult", "SamplingParams", "ChatTaskResult", "evaluate", "notes"]

log = logging.getLogger(__name__)

WRONG_SHOWN, RIGHT_SHOWN = 6, 3  # problems of a task that the report shows
ROUND = 128  # tokens: engines of nearly one length run the same compiled programs
Grades = Iterator[dict[int, dict[str, Any]]]  # problem -> grade, a few at a time


def evaluate(
    model: Model, tokenizer: Tokenizer, tasks: Mapping[str, Task], *,
    skipped: Mapping[str, str] | None = None, max_problems: int = -1,
    sampling: SamplingParams | None = None, batch_size: int | None = None,
    mesh: Mesh | None = None, answers_dir: str | os.PathLike[str] | None = None,
    pool: EnginePool | None = None,
) -> ChatResult:  # fmt: skip
    """The scores of a model on tasks of `BASELINES`, by name.

    Args:
        skipped: tasks without data here, and why; named in the result.
        max_problems: of each task, the first so many (-1: all).
        sampling: how answers are sampled (None: greedily, 512 tokens at most).
        batch_size: prompts of a forward pass, and answers sampled at once, on each device (None:
            as many as suit it).
        mesh: over which problems are split (None: the one that holds the parameters, if any).
        answers_dir: `<task>.jsonl` with every graded problem; what is there is not done again.
        pool: engines of this model that are there already; see `engines`.

    Raises:
        ValueError: no tasks, or one without problems.
    """
    sampling = sampling or SamplingParams()
    if not tasks:
        raise ValueError("no task to score: name a folder of task files with --task-data DIR")
    if sampling.temperature == 0 and sampling.num_samples > 1:
        log.warning("temperature 0 writes every answer %d times: give -t", sampling.num_samples)
    model, mesh = placing.on_mesh(model, mesh)
    opened = answers_log.logs_in(answers_dir, model, tokenizer)
    runs = [_task_run(name, task, max_problems, sampling, opened) for name, task in tasks.items()]
    waiting = [[r.task[i] for i in r.todo] for r in runs if r.task.kind == "generative"]
    pool = pool or engines(model, tokenizer, waiting, sampling, batch_size, mesh)
    for run in runs:
        with answers_log.progress_bar(run.name, len(run.task), len(run.log.grades)) as bar:
            if run.task.kind == "generative":
                grades = _written(run, pool, sampling)
            else:
                grades = _chosen(run, model, tokenizer, batch_size)
            for some in grades:
                run.log.add(some)
                bar.update(len(some))
    return ChatResult({run.name: run.result(sampling) for run in runs}, skipped or {})


@dataclasses.dataclass(frozen=True)
class _ChatRun:
    """A task, and the grades that its problems have so far."""

    name: str
    task: Task
    log: AnswersLog

    @property
    def todo(self) -> list[int]:
        """The problems without a grade."""
        return self.log.todo(len(self.task))

    def result(self, sampling: SamplingParams) -> ChatTaskResult:
        n, grades = len(self.task), self.log.grades.values()
        count = lambda key: sum(g[key] for g in grades)
        correct, baseline = count("correct"), BASELINES[self.name]
        right = [bool(self.log.grades[i]["correct"]) for i in range(n)]
        kept = dict(exchanges=self._shown(), right=right)
        if self.task.kind == "categorical":
            return ChatTaskResult(correct, n, baseline, cropped=count("cropped"), **kept)
        samples = sampling.num_samples
        share = lambda k: sum(generative.pass_at_k(g["right"], samples, k) for g in grades) / n
        passes = {k: share(k) for k in (1 << i for i in range(samples.bit_length()))}
        ends = count("cropped"), count("unfinished")
        return ChatTaskResult(correct, n, baseline, passes, *ends, **kept)

    def _shown(self) -> list[Exchange]:
        """The first problems, more of those that are wrong: from them one learns what is amiss."""
        grades = [grade for _, grade in sorted(self.log.grades.items())]
        of = lambda right, most: [g for g in grades if bool(g["correct"]) == right][:most]
        reply = lambda g: (g.get("answers") or [g.get("letter", "")])[0]
        return [
            Exchange(
                self.name, g.get("asked", ""), reply(g), bool(g["correct"]), g.get("wanted", "")
            )
            for g in of(False, WRONG_SHOWN) + of(True, RIGHT_SHOWN)
        ]


def _task_run(
    name: str, task: Task, most: int, sampling: SamplingParams, opened: Callable[..., AnswersLog]
) -> _ChatRun:
    """The first problems of a task, with the grades that are kept of them."""
    task, suffix, settings = task.view(stop=most) if most > 0 else task, "", {}
    if not len(task):
        raise ValueError(f"{name} has no problems")
    if task.kind == "generative":
        # Answers sampled otherwise are other answers: they get a file of their own.
        s, settings = sampling, dataclasses.asdict(sampling)
        suffix = f"_n{s.num_samples}_t{s.temperature:g}_k{s.top_k}_m{s.max_new_tokens}"
    rows = (task[i] for i in range(len(task)))
    return _ChatRun(name, task, opened(name, rows, suffix, **settings))


def engines(
    model: Model, tokenizer: Tokenizer, tasks: Sequence[Sequence[Conversation]],
    sampling: SamplingParams | None = None, slots: int | None = None, mesh: Mesh | None = None,
) -> EnginePool | None:  # fmt: skip
    """Engines with room for the longest prompt of all tasks and its answer; None: no prompts.

    `sampling`, `slots` and `mesh` as of `evaluate`, where slots are the batch size.
    """
    sampling, mesh = sampling or SamplingParams(), mesh or placing.mesh_of(model)
    prompts = (tokenizer.render_for_completion(task[i]) for task in tasks for i in range(len(task)))
    most = max(map(len, prompts), default=0)
    if not most:
        return None
    # One pool for all tasks: the engines' programs are compiled for a length once.
    need = -(-(most + sampling.max_new_tokens) // ROUND) * ROUND
    max_len = min(need, placing.longest(model))
    return EnginePool(model, tokenizer, max_len=max_len, slots=slots, mesh=mesh)


def _chosen(run: _ChatRun, model: Model, tokenizer: Tokenizer, rows: int | None) -> Grades:
    """Grades by the letters' logits."""
    limit, cropped = placing.longest(model), set()

    def prompts() -> Iterator[categorical.LetterPrompt]:
        for i in run.todo:
            one = categorical.letter_prompt(tokenizer, i, run.task[i])
            if len(one.prompt) > limit:
                cropped.add(i)
            yield one._replace(prompt=one.prompt[-limit:])

    pad = tokenizer.get_bos_token_id()
    for found in categorical.option_logits(model, prompts(), pad=pad, rows=rows):
        grades = {}
        for i, logits in found.items():
            conversation = run.task[i]
            letter = categorical.likeliest(conversation, logits)
            grades[i] = {
                "correct": run.task.score(conversation, letter) > 0, "letter": letter,
                "logits": [round(float(x), 6) for x in logits], "cropped": i in cropped,
            } | _texts(conversation)  # fmt: skip
        yield grades


def _written(run: _ChatRun, pool: EnginePool | None, sampling: SamplingParams) -> Grades:
    """Grades of written answers; without a pool there is nothing left to write."""
    for done in generative.answer(pool, run.task, run.todo, sampling) if pool else ():
        some = done.answers
        yield {done.index: {
            "correct": done.right > 0, "right": done.right, "marks": [a.grade for a in some],
            "answers": [a.text for a in some], "tokens": [len(a.tokens) for a in some],
            "unfinished": sum(a.stop_token is None for a in some), "cropped": done.cropped,
        } | _texts(run.task[done.index])}  # fmt: skip


def _texts(conversation: Conversation) -> dict[str, str]:
    """The question as it was put, and the answer that was wanted."""
    *_, question, wanted = conversation["messages"]
    parts = wanted["content"]
    text = parts if isinstance(parts, str) else parts[-1]["text"]
    return {"asked": question["content"], "wanted": text}
