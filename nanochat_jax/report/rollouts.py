"""The rollouts of reinforcement learning, to leaf through: step by step, answer by answer."""

import re
from collections.abc import Sequence
from typing import Any

from markupsafe import Markup

from nanochat_jax.report.runs import RolloutGroup, StageRun
from nanochat_jax.report.templates import render

# Characters of a text: a model that never stops must not fill the page.
TEXT_SHOWN = 4000
TOOL = re.compile(r"<\|(python|output)_start\|>(.*?)(?:<\|\1_end\|>|$)", re.DOTALL)


def view(run: StageRun) -> Markup:
    """A strip of steps by mean reward, and under it each step's questions with their answers."""
    rewards = {step: _mean(groups) for step, groups in run.rollouts.items()}
    return render(
        "rollouts.html", run=run, rewards=rewards, number=_number, tool_calls=TOOL,
        longest=TEXT_SHOWN,
    )  # fmt: skip


def _mean(groups: Sequence[RolloutGroup]) -> float:
    rewards = [_number(rollout.get("reward")) for rollouts in groups for rollout in rollouts]
    known = [reward for reward in rewards if reward is not None]
    return sum(known) / len(known) if known else 0.0


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) else None
