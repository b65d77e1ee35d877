"""The original's beginnings: the samples of one call to its engine all begin with the same token.

Kept for comparison (`--share-first-token`): of 16 replies in calls of 8 at most two begin apart.
Source: nanochat October 2025 `nanochat/engine.py`, which samples once after the prefill.
"""

import dataclasses
from collections.abc import Iterator, Sequence

from nanochat_jax.evals.generative import Answer, Answered, Asked, Mark, Sampling, Writers
from nanochat_jax.serve.engine.requests import Generation
from nanochat_jax.tasks.mixture import Task


def answer(
    writers: Writers,
    task: Task,
    problems: Sequence[int],
    sampling: Sampling,
    *,
    mark: Mark,
    together: int,
) -> list[Answered]:
    """The problems with their marked answers; `together` consecutive answers begin alike.

    Raises:
        ValueError: the samples are not a multiple of `together`.
    """
    if sampling.num_samples % together:
        raise ValueError(f"{sampling.num_samples} samples are not a multiple of {together}")
    calls = sampling.num_samples // together
    one = dataclasses.replace(sampling, num_samples=calls, max_new_tokens=1)
    asked = [writers.ask(i, task[i], sampling) for i in problems]
    begun = {
        question.problem: (question, [job.tokens[0].id for job in jobs])
        for question, jobs in writers.write(asked, one, dealt=True)
    }
    rest = dataclasses.replace(
        sampling, num_samples=together, seed=sampling.seed + 1,
        max_new_tokens=sampling.max_new_tokens - 1,
    )  # fmt: skip
    ends = writers.engines[0].stop_tokens
    calls_of = {
        question.problem * calls + c: question._replace(
            problem=question.problem * calls + c, prompt=[*question.prompt, first]
        )
        for question, firsts in begun.values()
        for c, first in enumerate(firsts)
        if first not in ends
    }
    going_on = writers.write(calls_of.values(), rest, dealt=True)
    written = {call.problem: jobs for call, jobs in going_on}
    done = []
    for question, firsts in (begun[i] for i in problems):
        answers: list[Answer] = []
        for c, first in enumerate(firsts):
            jobs = written.get(question.problem * calls + c)
            answers += _answers(writers, mark, question, first, jobs, together)
        done.append(Answered(question.problem, question.prompt, question.cropped, answers))
    return done


def _answers(
    writers: Writers,
    mark: Mark,
    asked: Asked,
    first: int,
    jobs: Sequence[Generation] | None,
    count: int,
) -> Iterator[Answer]:
    """The answers of one call: `first` and what each went on with (None: it was the end)."""
    for i in range(count):
        tokens, masks, terminal = [], [], first
        if jobs is not None:
            rest = jobs[i].reply()
            tokens, masks = [first, *rest.tokens], [1, *rest.masks]
            terminal = jobs[i].tokens[-1].id if rest.finish_reason == "stop" else None
        text = writers.tokenizer.decode(tokens)
        yield Answer(tokens, masks, terminal, text, float(mark(asked.conversation, text)))
