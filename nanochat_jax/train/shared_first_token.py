"""The original's beginnings: the samples of one call to its engine all begin with the same token.

Kept for comparison (`--share-first-token`): of 16 replies in calls of 8 at most two begin apart.
Source: nanochat October 2025 `nanochat/engine.py`, which samples once after the prefill.
"""

import dataclasses
from collections.abc import Iterator, Sequence

from nanochat_jax.evals.generative import (
    EnginePool,
    GradedAnswer,
    GradedProblem,
    Grader,
    Problem,
    SamplingParams,
)
from nanochat_jax.serve.engine.requests import Generation
from nanochat_jax.tasks import Task


def answer(
    pool: EnginePool,
    task: Task,
    problems: Sequence[int],
    sampling: SamplingParams,
    *,
    grade: Grader,
    together: int,
) -> list[GradedProblem]:
    """The problems with their graded answers; `together` consecutive answers begin alike.

    Raises:
        ValueError: the samples are not a multiple of `together`.
    """
    if sampling.num_samples % together:
        raise ValueError(f"{sampling.num_samples} samples are not a multiple of {together}")
    calls = sampling.num_samples // together
    one = dataclasses.replace(sampling, num_samples=calls, max_new_tokens=1)
    begin = [pool.problem(i, task[i], sampling) for i in problems]
    begun = {
        question.index: (question, [job.tokens[0].id for job in jobs])
        for question, jobs in pool.generate(begin, one, in_turn=True)
    }
    rest = dataclasses.replace(
        sampling, num_samples=together, seed=sampling.seed + 1,
        max_new_tokens=sampling.max_new_tokens - 1,
    )  # fmt: skip
    ends = pool.engines[0].stop_tokens
    calls_of = {
        question.index * calls + c: question._replace(
            index=question.index * calls + c, prompt=[*question.prompt, first]
        )
        for question, firsts in begun.values()
        for c, first in enumerate(firsts)
        if first not in ends
    }
    going_on = pool.generate(calls_of.values(), rest, in_turn=True)
    written = {call.index: jobs for call, jobs in going_on}
    done = []
    for question, firsts in (begun[i] for i in problems):
        answers: list[GradedAnswer] = []
        for c, first in enumerate(firsts):
            jobs = written.get(question.index * calls + c)
            answers += _answers(pool, grade, question, first, jobs, together)
        done.append(GradedProblem(question.index, question.prompt, question.cropped, answers))
    return done


def _answers(
    pool: EnginePool,
    grade: Grader,
    problem: Problem,
    first: int,
    jobs: Sequence[Generation] | None,
    count: int,
) -> Iterator[GradedAnswer]:
    """The answers of one call: `first` and what each went on with (None: it was the end)."""
    for i in range(count):
        tokens, masks, stop_token = [], [], first
        if jobs is not None:
            rest = jobs[i].reply()
            tokens, masks = [first, *rest.tokens], [1, *rest.masks]
            stop_token = jobs[i].tokens[-1].id if rest.finish_reason == "stop" else None
        text = pool.tokenizer.decode(tokens)
        yield GradedAnswer(
            tokens, masks, stop_token, text, float(grade(problem.conversation, text))
        )
