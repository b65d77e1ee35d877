"""One stage on the page: what it took, its curves, what it wrote on the way, its settings."""

import json
import re
from typing import Any

from nanochat_jax.report.charts import Series, chart, number
from nanochat_jax.report.html import Html, tag
from nanochat_jax.report.runs import StageRun
from nanochat_jax.report.text import duration

NAMES = {"base": "Base", "mid": "Midtraining", "sft": "Finetuning", "rl": "Reinforcement learning"}
# Title, pattern of the metrics' names, and how they are drawn.
CURVES: tuple[tuple[str, str, dict[str, bool]], ...] = (
    ("Training loss, nats per token", "train/loss", {}),
    ("Validation, bits per byte", "val/bpb", {"dots": True}),
    ("Reward", r"train/reward(/.*)?", {"zero": True}),
    ("Solved within k tries", r"val/pass@\d+", {"zero": True, "dots": True}),
    ("Length of prompt and reply, tokens", "train/sequence_length", {"zero": True}),
    ("Share of replies that end themselves", "train/stopped", {"zero": True}),
    ("CORE", "core_metric", {"dots": True}),
    ("Scores on the way", r".*_acc|chatcore_metric", {"zero": True, "dots": True}),
    ("Learning rate, share of its peak", "train/lr_multiplier", {"zero": True}),
    ("Tokens per second", "tokens_per_s", {"robust": True, "zero": True}),
    ("Use of the hardware, % (MFU)", "mfu", {"robust": True, "zero": True}),
    ("Norm of the gradient", "train/grad_norm", {"robust": True}),
)


def view(run: StageRun) -> Html:
    """The section of a run."""
    title = NAMES.get(run.stage, run.stage)
    return tag(
        "section",
        tag("h2", title, tag("small", run.tag)),
        _facts(run),
        tag("div", *_charts(run), class_="charts"),
        _samples(run),
        _differences(run),
        id=run.stage,
        class_=f"of-{run.stage}",
    )


def _facts(run: StageRun) -> Html:
    seconds, loop = run.train_s, run.meta.get("loop") or {}
    facts = {
        "Steps": f"{run.steps:,}",
        "Tokens": number(run.tokens) if run.tokens else None,
        "Training time": duration(seconds) if seconds else None,
        "Tokens a second": number(run.tokens / seconds) if seconds and run.tokens else None,
        "Parameters": number(run.parameters) if run.parameters else None,
        "Best bits per byte": _four(loop.get("best_bpb")),
        "Recipe": run.config.get("recipe"),
        "Finished": None if run.meta.get("final", True) else "not yet",
    }
    shown = ((name, value) for name, value in facts.items() if value is not None)
    return tag("dl", *(tag("div", tag("dt", n), tag("dd", v)) for n, v in shown), class_="facts")


def _charts(run: StageRun) -> list[Html]:
    known = dict.fromkeys(key for line in run.lines for key in line)
    drawn = []
    for title, pattern, options in CURVES:
        if run.stage == "rl" and pattern == "train/loss":
            title = "Loss of the policy"  # reward times log-probability: no nats to compare
        keys = [key for key in known if re.fullmatch(pattern, key)]
        dots, axis = options.get("dots", False), {k: v for k, v in options.items() if k != "dots"}
        series = [Series(key.split("/", 1)[-1], _points(run, key), dots) for key in keys]
        drawn.append(chart(title, series, **axis))
    return drawn


def _points(run: StageRun, key: str) -> list[tuple[float, float]]:
    is_number = lambda x: isinstance(x, int | float) and not isinstance(x, bool)
    return [
        (line["step"], line[key]) for line in run.lines
        if is_number(line.get(key)) and is_number(line.get("step"))
    ]  # fmt: skip


def _samples(run: StageRun) -> Html | None:
    """What the model wrote of each prompt, from step to step."""
    taken = [(x.get("step"), x["samples"]) for x in run.lines if isinstance(x.get("samples"), list)]
    if not taken:
        return None
    prompts = run.config.get("sample_prompts") or []
    rows = []
    for i in range(max(len(texts) for _, texts in taken)):
        prompt = str(prompts[i]) if i < len(prompts) else ""
        pairs = [(step, str(texts[i])) for step, texts in taken if i < len(texts)]
        lines = [tag("li", tag("span", f"{step}"), _text(prompt, text)) for step, text in pairs]
        rows.append(tag("ol", *lines))
    return tag("div", tag("h3", "What it wrote on the way"), *rows, class_="samples")


def _text(prompt: str, text: str) -> Html:
    if prompt and text.startswith(prompt):
        return tag("p", tag("b", prompt), text[len(prompt) :])
    return tag("p", text)


def _differences(run: StageRun) -> Html | None:
    """The settings that are not the recipe's, and all of them to unfold."""
    if not run.config:
        return None
    rows = [
        tag("tr", tag("th", key, scope="row"), tag("td", _shown(here)), tag("td", _shown(usual)))
        for key, usual, here in run.differences()
    ]
    head = tag("tr", tag("th", "Setting"), tag("th", "This run"), tag("th", "Recipe's default"))
    table = tag("div", tag("table", head, *rows), class_="wide settings")
    every = json.dumps(dict(run.config), indent=1, ensure_ascii=False)
    return tag(
        "details",
        tag("summary", f"Settings: {len(rows)} differ from the recipe's defaults"),
        table if rows else None,
        tag("details", tag("summary", "All settings"), tag("pre", every)),
    )


def _shown(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "none"
    return "empty" if value == "" else str(value)


def _four(value: Any) -> str | None:
    return f"{value:.4f}" if isinstance(value, int | float) else None
