"""Rollouts: questions of rewarded tasks, replies sampled by the engine, and the rows they make.

All samples of all questions of a step are written at once; each has a seed of its own, so that what
is sampled depends on the parameters and the question's number alone, not on devices or slots.
"""

import dataclasses
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from nanochat_jax import tasks
from nanochat_jax.data.packing import padded_width
from nanochat_jax.evals.generative import EnginePool, GradedProblem, SamplingParams, graded
from nanochat_jax.serve.engine.requests import Generation
from nanochat_jax.tasks import Conversation
from nanochat_jax.train import rl_loss
from nanochat_jax.train.curriculum import StepRows


class Questions:
    """The questions of several tasks as one, in the order of their mixture, over and over. A
    question's own task rewards its replies.

    One task keeps its own order, as in the original.

    Raises:
        ValueError: a task that rewards nothing, or no question at all.
    """

    def __init__(
        self, names: Sequence[str], root: pathlib.Path, split: str, task_data: str | None = None
    ):
        built = tasks.build(names, root, split, stage="sft", task_data=task_data)
        self.names = sorted({task.name for task in built.tasks})
        if any(task.reward is None for task in built.tasks):
            raise ValueError(
                f"{', '.join(names)}: not every task has a reward to learn from; take GSM8K, "
                "SpellingBee, ARC-Easy, ARC-Challenge, MMLU or exchanges[:sums|:counts|:spelling]"
            )
        # Its rows are a test set of 164: nothing would be left to measure with.
        if "HumanEval" in self.names:
            raise ValueError("HumanEval has test rows alone: to train on them spoils its score")
        self.mixture = tasks.Mixture(built.tasks, seed=None) if len(self.names) == 1 else built
        if not len(built):
            raise ValueError(f"{', '.join(names)}: not one question for the {split} split")

    def __len__(self) -> int:
        return len(self.mixture)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """The conversation, and the task it belongs to."""
        task, row = self.mixture.at(index % len(self))
        return {**task[row], "task": task}

    def reward(self, conversation: Conversation, reply: str) -> float:
        """What a question's own task gives for a reply."""
        return float(conversation["task"].reward(conversation, reply))

    def first(self, count: int) -> list[int]:
        """The first questions, about `count`: the same number of each task."""
        by_task: dict[str, list[int]] = {name: [] for name in self.names}
        for index in range(len(self)):
            by_task[self.mixture.at(index)[0].name].append(index)
        # Of each alike: in a mixture by size a small task would be measured by a handful of rows.
        each = max(1, count // len(self.names))
        return sorted(i for indices in by_task.values() for i in indices[:each])


def answer_alike(
    pool: EnginePool, questions: Questions, chosen: Sequence[int], sampling: SamplingParams,
    together: int,
) -> list[GradedProblem]:  # fmt: skip
    """The questions with their graded replies, of which `together` consecutive ones begin alike.

    The original's replies of one call to its engine do, since it samples once after the prefill.
    Kept for comparison: of 16 replies in calls of 8 at most two begin apart.
    Source: nanochat October 2025 `nanochat/engine.py`.
    """
    calls = sampling.num_samples // together
    one = dataclasses.replace(sampling, num_samples=calls, max_new_tokens=1)
    rest = dataclasses.replace(
        sampling, num_samples=together, seed=sampling.seed + 1,
        max_new_tokens=sampling.max_new_tokens - 1,
    )  # fmt: skip
    problems = [pool.problem(i, questions[i], sampling) for i in chosen]
    begun = {p.index: firsts for p, firsts in pool.generate(problems, one, in_turn=True)}
    # A call is a problem of its own, whose prompt ends with the token that its samples share.
    continued = [
        p._replace(index=p.index * calls + call, prompt=[*p.prompt, first.tokens[0].id])
        for p in problems
        for call, first in enumerate(begun[p.index])
        if first.finish_reason != "stop"
    ]
    ended = {p.index: found for p, found in pool.generate(continued, rest, in_turn=True)}
    done = []
    for p in problems:
        replies: list[Generation] = []
        for call, first in enumerate(begun[p.index]):
            for reply in ended.get(p.index * calls + call, ()):
                replies.append(dataclasses.replace(reply, tokens=[*first.tokens, *reply.tokens]))
            if first.finish_reason == "stop":  # it ended all replies of its call at once
                replies += [first] * together
        done.append(graded(pool.tokenizer, questions.reward, p, replies))
    return done


def rows(
    step: int, questions: Questions, answered: Sequence[GradedProblem], pad: int, context: int, *,
    micro_rows: int, per_pass: int, learn_stop: bool,
) -> tuple[StepRows, list[dict[str, Any]]]:  # fmt: skip
    """The replies as weighted rows of one optimizer step, and what the log keeps of them (see
    `train/rollout_log.py`).

    A pass is `per_pass` rows on all devices; the loss is the mean over micro-batches of
    `micro_rows` consecutive rows. No row is longer than `context` tokens.
    """
    rewards_PS = np.asarray([[a.grade for a in done.answers] for done in answered], np.float32)
    advantages_PS = rl_loss.advantages(rewards_PS)
    sequences, masks, records = [], [], []
    for done, advantages_S in zip(answered, advantages_PS, strict=True):
        conversation = questions[done.index]
        about = {
            "step": step, "example": done.index % len(questions),
            "task": conversation["task"].name,
            "question": conversation["messages"][-2]["content"],
        }  # fmt: skip
        for sample, (reply, advantage) in enumerate(zip(done.answers, advantages_S, strict=True)):
            stop = [] if reply.stop_token is None or not learn_stop else [reply.stop_token]
            ids, mask = [*reply.tokens, *stop], [*reply.masks, *[1] * len(stop)]
            sequences.append([*done.prompt, *ids])
            masks.append([0] * len(done.prompt) + mask)
            records.append({
                **about, "sample": sample, "reply": reply.text, "reward": reply.grade,
                "advantage": round(float(advantage), 6), "tokens": len(ids),
                "finish": "length" if reply.stop_token is None else "stop",
                "ids": ids, "mask": mask,
            })  # fmt: skip
    T = padded_width(max(map(len, sequences)) - 1, context)
    inputs, targets = rl_loss.rollout_rows(sequences, masks, pad, T)
    shape = (-1, per_pass, T)
    targets_ART, advantages_AR = targets.reshape(shape), advantages_PS.reshape(shape[:2])
    weights = np.asarray(rl_loss.policy_weights(targets_ART, advantages_AR, micro_rows))
    tokens, found = sum(record["tokens"] for record in records), numbers(records, rewards_PS)
    found["train/sequence_length"] = float(np.mean([len(sequence) for sequence in sequences]))
    made = StepRows(inputs.reshape(shape), targets_ART, tokens, weights=weights, numbers=found)
    return made, records


def numbers(records: Sequence[dict[str, Any]], rewards_PS: np.ndarray) -> dict[str, float]:
    """Mean reward (of each task where there are several), share of replies that ended themselves,
    and of questions with unequal rewards: advantages of the others are all 0 and their replies
    change nothing."""
    by_task: dict[str, list[float]] = {}
    for record in records:
        by_task.setdefault(record["task"], []).append(record["reward"])
    found = {f"train/reward/{name}": float(np.mean(by_task[name])) for name in sorted(by_task)}
    return (found if len(found) > 1 else {}) | {
        "train/reward": float(rewards_PS.mean()),
        "train/stopped": float(np.mean([record["finish"] == "stop" for record in records])),
        "train/mixed": float(np.mean(rewards_PS.min(axis=1) != rewards_PS.max(axis=1))),
    }
