"""How the original samples replies: those of one call to its engine all begin with the same token.

Kept for comparison (`--share-first-token`): of 16 replies in calls of 8 at most two begin apart.
Source: nanochat October 2025 `nanochat/engine.py`, which samples once after the prefill.
"""

import dataclasses
from collections.abc import Sequence

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
    rows: Sequence[int],
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
    calls, more = sampling.num_samples // together, sampling.max_new_tokens - 1
    one = dataclasses.replace(sampling, num_samples=calls, max_new_tokens=1)
    rest = dataclasses.replace(
        sampling, num_samples=together, seed=sampling.seed + 1, max_new_tokens=more
    )
    problems = [pool.problem(i, task[i], sampling) for i in rows]
    firsts = {
        problem.index: [generation.tokens[0].id for generation in generations]
        for problem, generations in pool.generate(problems, one, in_turn=True)
    }
    # A call is a problem of its own, whose prompt ends with the token that its samples share.
    continued = [
        p._replace(index=p.index * calls + c, prompt=[*p.prompt, first])
        for p in problems
        for c, first in enumerate(firsts[p.index])
        if first not in pool.engines[0].stop_tokens
    ]
    generated = {p.index: found for p, found in pool.generate(continued, rest, in_turn=True)}
    done = []
    for p in problems:
        answers = [
            _joined(pool, grade, p, first, generation)
            for c, first in enumerate(firsts[p.index])
            for generation in generated.get(p.index * calls + c, [None] * together)
        ]
        done.append(GradedProblem(p.index, p.prompt, p.cropped, answers))
    return done


def _joined(
    pool: EnginePool, grade: Grader, problem: Problem, first: int, generation: Generation | None
) -> GradedAnswer:
    """The answer that begins with `first`; without a generation that token ended it at once."""
    tokens, masks, stop_token = [], [], first
    if generation is not None:
        rest = generation.reply()
        tokens, masks = [first, *rest.tokens], [1, *rest.masks]
        stop_token = generation.tokens[-1].id if rest.finish_reason == "stop" else None
    text = pool.tokenizer.decode(tokens)
    return GradedAnswer(tokens, masks, stop_token, text, float(grade(problem.conversation, text)))
