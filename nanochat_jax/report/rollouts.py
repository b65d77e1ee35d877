"""The rollouts of reinforcement learning, to leaf through: step by step, answer by answer."""

from collections.abc import Mapping, Sequence
from typing import Any

from nanochat_jax.report.html import Html, join, tag
from nanochat_jax.report.runs import TEXT_SHOWN, Run


def view(run: Run) -> Html | None:
    """A strip of steps by mean reward, and under it each step's questions with their answers."""
    if not run.rollouts:
        return None
    steps: dict[int, list[Mapping[str, Any]]] = {}
    for entry in run.rollouts:
        steps.setdefault(int(entry.get("step", 0)), []).append(entry)
    cells = [_cell(step, _mean(entries)) for step, entries in steps.items()]
    told = f"{len(run.rollouts):,} of {run.rollouts_in_all:,} recorded questions"
    choices = [
        tag("button", name, type="button", data_show=kind, aria_pressed=str(kind == "all").lower())
        for kind, name in (("all", "all answers"), ("good", "rewarded"), ("bad", "not rewarded"))
    ]
    return tag(
        "section",
        tag("h2", "Rollouts", tag("small", told)),
        tag(
            "p",
            "Each square is a step, the fuller the more reward; choose one. Underlined is what "
            "the tool wrote: it is not learnt.",
        ),
        tag("nav", *cells, class_="strip", aria_label="steps"),
        tag("div", *choices, class_="choices"),
        *(_step(step, entries) for step, entries in steps.items()),
        id="rollouts",
        class_="of-rl",
    )


def _cell(step: int, mean: float) -> Html:
    shade = round(100 * min(1.0, max(0.0, mean)))
    told = f"step {step}: mean reward {mean:.2f}"
    return tag("a", href=f"#step-{step}", title=told, aria_label=told, style=f"--share:{shade}%")


def _step(step: int, entries: Sequence[Mapping[str, Any]]) -> Html:
    title = tag("summary", f"Step {step}", tag("small", f"mean reward {_mean(entries):.2f}"))
    return tag("details", title, *map(_question, entries), id=f"step-{step}", class_="step")


def _question(entry: Mapping[str, Any]) -> Html:
    kept, total = entry["samples"], entry.get("samples_in_all", len(entry["samples"]))
    where = " ".join(str(entry[k]) for k in ("task", "row") if k in entry)
    return tag(
        "article",
        tag("h3", where) if where else None,
        _quote(entry.get("prompt"), "prompt"),
        tag("p", "Right: ", tag("b", entry["answer"])) if entry.get("answer") else None,
        tag("ol", *map(_sample, kept), class_="answers"),
        tag("p", f"and {total - len(kept)} more", class_="more") if total > len(kept) else None,
    )


def _sample(sample: Mapping[str, Any]) -> Html:
    reward, advantage = _number(sample.get("reward")), _number(sample.get("advantage"))
    marks = [tag("b", f"{reward:g}", class_="reward")] if reward is not None else []
    marks += [tag("small", f"advantage {advantage:+.2f}")] if advantage is not None else []
    marks += [tag("small", "cut off")] if sample.get("stopped") is False else []
    kind = "good" if (reward or 0.0) > 0 else "bad"
    return tag("li", tag("div", *marks), tag("p", _said(sample)), class_=kind)


def _said(sample: Mapping[str, Any]) -> Html:
    """The answer; runs of tokens that were forced, where the recorder tells them, are marked."""
    pieces, left, shown = sample.get("pieces"), TEXT_SHOWN, []
    for text, sampled in pieces if _are_pieces(pieces) else [(sample.get("text", ""), 1)]:
        part = str(text)[:left]
        left -= len(part)
        shown.append(part if sampled else tag("u", part))
    return join(*shown, "…" if left <= 0 else None)


def _are_pieces(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(p, list) and len(p) == 2 for p in value)


def _quote(text: Any, kind: str) -> Html | None:
    return tag("blockquote", str(text)[:TEXT_SHOWN], class_=kind) if text else None


def _mean(entries: Sequence[Mapping[str, Any]]) -> float:
    found = [_number(s.get("reward")) for e in entries for s in e["samples"]]
    rewards = [r for r in found if r is not None]
    return sum(rewards) / len(rewards) if rewards else 0.0


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) else None
