"""The rollouts of reinforcement learning, to leaf through: step by step, answer by answer."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from nanochat_jax.report.html import Html, join, tag
from nanochat_jax.report.runs import RolloutGroup, StageRun

# Characters of a text: a model that never stops must not fill the page.
TEXT_SHOWN = 4000
TOOL = re.compile(r"<\|(python|output)_start\|>(.*?)(?:<\|\1_end\|>|$)", re.DOTALL)
CHOICES = (("all", "all answers"), ("good", "rewarded"), ("bad", "not rewarded"))


def view(run: StageRun) -> Html | None:
    """A strip of steps by mean reward, and under it each step's questions with their answers."""
    if not run.rollouts:
        return None
    buttons = [
        tag("button", name, type="button", data_show=kind, aria_pressed=str(kind == "all").lower())
        for kind, name in CHOICES
    ]
    hint = "Each square is a step, the fuller the more reward; choose one. Underlined is what the "
    hint += "tool wrote, which is not trained on."
    return tag(
        "section",
        tag("h2", "Rollouts", tag("small", f"{len(run.rollouts)} of {run.recorded_steps} steps")),
        tag("p", hint),
        tag("nav", *(_cell(step, _mean(groups)) for step, groups in run.rollouts.items()),
            class_="strip", aria_label="steps"),
        tag("div", *buttons, class_="choices"),
        *(_step(step, groups) for step, groups in run.rollouts.items()),
        id="rollouts",
        class_="of-rl",
    )  # fmt: skip


def _cell(step: int, mean: float) -> Html:
    shade = round(100 * min(1.0, max(0.0, mean)))
    label = f"step {step}: mean reward {mean:.2f}"
    return tag("a", href=f"#step-{step}", title=label, aria_label=label, style=f"--share:{shade}%")


def _step(step: int, groups: Sequence[RolloutGroup]) -> Html:
    title = tag("summary", f"Step {step}", tag("small", f"mean reward {_mean(groups):.2f}"))
    return tag("details", title, *map(_question, groups), id=f"step-{step}", class_="step")


def _question(rollouts: RolloutGroup) -> Html:
    first = rollouts[0]
    where = " ".join(str(first[key]) for key in ("task", "example") if key in first)
    return tag(
        "article",
        tag("h3", where) if where else None,
        tag("blockquote", str(first["question"])[:TEXT_SHOWN]) if "question" in first else None,
        tag("ol", *map(_answer, rollouts), class_="answers"),
    )


def _answer(rollout: Mapping[str, Any]) -> Html:
    reward, advantage = _number(rollout.get("reward")), _number(rollout.get("advantage"))
    badges = [
        tag("b", f"{reward:g}", class_="reward") if reward is not None else None,
        tag("small", f"advantage {advantage:+.2f}") if advantage is not None else None,
        tag("small", "cut off") if rollout.get("finish") == "length" else None,
    ]
    kind = "good" if (reward or 0.0) > 0 else "bad"
    return tag("li", tag("div", *badges), _reply(str(rollout.get("reply", ""))), class_=kind)


def _reply(text: str) -> Html:
    """The text, with calls of the tool as code and its answers underlined."""
    parts: list[Html | str] = []
    shown, at = text[:TEXT_SHOWN], 0
    for found in TOOL.finditer(shown):
        made = tag("code" if found[1] == "python" else "u", found[2])
        parts += [shown[at : found.start()], made, " "]
        at = found.end()
    parts += [shown[at:], "…" if len(text) > TEXT_SHOWN else ""]
    return tag("p", join(*parts))


def _mean(groups: Sequence[RolloutGroup]) -> float:
    rewards = [_number(rollout.get("reward")) for rollouts in groups for rollout in rollouts]
    known = [reward for reward in rewards if reward is not None]
    return sum(known) / len(known) if known else 0.0


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) else None
