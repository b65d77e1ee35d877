"""Rollouts: questions of rewarded tasks, replies sampled by the engine, and the rows they make.

All samples of all questions of a step are written at once; each has a seed of its own, so that what
is sampled depends on the parameters and the question's number alone, not on devices or slots.
"""

import pathlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from nanochat_jax import tasks
from nanochat_jax.evals.generative import GradedAnswer, GradedProblem
from nanochat_jax.tasks import Conversation
from nanochat_jax.train import rl_loss
from nanochat_jax.train.curriculum import StepRows

# Rows are a multiple of this long: every other length would be a shape to compile.
WIDTH = 64


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


class Rollouts(NamedTuple):
    """What a step learns from: P questions of S replies each, a row a reply.

    `sequences` hold prompt and reply; `masks` are 1 where a token was sampled.
    """

    sequences: list[list[int]]
    masks: list[list[int]]
    rewards_PS: np.ndarray
    advantages_PS: np.ndarray
    records: list[dict[str, Any]]


def collect(
    step: int, questions: Questions, answered: Sequence[GradedProblem], *, learn_stop: bool = True
) -> Rollouts:
    """The rows of a step and what the log keeps of them (see `train/rollout_log.py`)."""
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
            ids, mask = _tokens(reply, learn_stop)
            sequences.append([*done.prompt, *ids])
            masks.append([0] * len(done.prompt) + mask)
            records.append({
                **about, "sample": sample, "reply": reply.text, "reward": reply.grade,
                "advantage": round(float(advantage), 6), "tokens": len(ids),
                "finish": "length" if reply.stop_token is None else "stop",
                "ids": ids, "mask": mask,
            })  # fmt: skip
    return Rollouts(sequences, masks, rewards_PS, advantages_PS, records)


def _tokens(reply: GradedAnswer, learn_stop: bool) -> tuple[list[int], list[int]]:
    """(ids, mask) of a reply, with the token that ended it if stopping is trained."""
    if reply.stop_token is None or not learn_stop:
        return list(reply.tokens), list(reply.masks)
    return [*reply.tokens, reply.stop_token], [*reply.masks, 1]


def rows(found: Rollouts, pad: int, context: int, *, devices: int, per_pass: int) -> StepRows:
    """The rollouts as weighted rows of one optimizer step.

    A pass is `per_pass` consecutive rows on one device; no row is longer than `context` tokens.
    """
    longest = max(map(len, found.sequences)) - 1
    T = min(-(-longest // WIDTH) * WIDTH, context)
    inputs, targets = rl_loss.rollout_rows(found.sequences, found.masks, pad, T)
    shape = (-1, devices * per_pass, T)
    targets_ART, advantages_AR = targets.reshape(shape), found.advantages_PS.reshape(shape[:2])
    return StepRows(
        inputs=inputs.reshape(shape),
        targets=targets_ART,
        tokens=sum(record["tokens"] for record in found.records),
        weights=np.asarray(rl_loss.policy_weights(targets_ART, advantages_AR, per_pass)),
        numbers=numbers(found),
    )


def numbers(rollouts: Rollouts) -> dict[str, float]:
    """What is logged of a step: mean reward (of each task where there are several), mean tokens of
    prompt and reply, share of replies that ended themselves, and of questions with unequal
    rewards: advantages of the others are all 0 and their replies change nothing."""
    rewards = rollouts.rewards_PS
    by_task: dict[str, list[float]] = {}
    for record in rollouts.records:
        by_task.setdefault(record["task"], []).append(record["reward"])
    stopped = [record["finish"] == "stop" for record in rollouts.records]
    found = {
        "train/reward": float(rewards.mean()),
        "train/sequence_length": float(np.mean([len(s) for s in rollouts.sequences])),
        "train/stopped": float(np.mean(stopped)),
        "train/mixed": float(np.mean(rewards.min(axis=1) != rewards.max(axis=1))),
    }
    if len(by_task) > 1:
        found |= {f"train/reward/{name}": float(np.mean(by_task[name])) for name in sorted(by_task)}
    return found
