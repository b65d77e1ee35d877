"""One stage on the page: what it took, its curves, what it wrote on the way, its settings."""

import json
import re
from typing import Any

from markupsafe import Markup

from nanochat_jax.report.about import VALIDATED
from nanochat_jax.report.charts import Series, chart, number
from nanochat_jax.report.runs import StageRun
from nanochat_jax.report.templates import render
from nanochat_jax.report.text import duration

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


def view(run: StageRun) -> Markup:
    """The section of a run."""
    return render(
        "stage.html", run=run, facts=_facts(run), charts=_charts(run), samples=_samples(run),
        differences=run.differences(), shown=_shown,
        settings=json.dumps(dict(run.config), indent=1, ensure_ascii=False),
    )  # fmt: skip


def _facts(run: StageRun) -> dict[str, str | None]:
    seconds, loop = run.train_s, run.meta.get("loop") or {}
    return {
        "Steps": f"{run.steps:,}",
        "Tokens": number(run.tokens) if run.tokens else None,
        "Training time": duration(seconds) if seconds else None,
        "Tokens a second": number(run.tokens / seconds) if seconds and run.tokens else None,
        "Parameters": number(run.parameters) if run.parameters else None,
        f"Best bits per byte, {_of(run)}": _four(loop.get("best_bpb")),
        "Recipe": run.config.get("recipe"),
        "Finished": None if run.meta.get("final", True) else "not yet",
    }


def _of(run: StageRun) -> str:
    return f"of {VALIDATED.get(run.stage, 'validation')}"


def _charts(run: StageRun) -> list[Markup]:
    known = dict.fromkeys(key for line in run.lines for key in line)
    drawn = []
    for title, pattern, options in CURVES:
        if run.stage == "rl" and pattern == "train/loss":
            title = "Loss of the policy"  # reward times log-probability: no nats to compare
        if pattern == "val/bpb":
            title += f", {_of(run)}"
        keys = [key for key in known if re.fullmatch(pattern, key)]
        series = [Series(key.split("/", 1)[-1], _points(run, key)) for key in keys]
        drawn.append(chart(title, series, **options))
    return drawn


def _points(run: StageRun, key: str) -> list[tuple[float, float]]:
    is_number = lambda x: isinstance(x, int | float) and not isinstance(x, bool)
    return [
        (line["step"], line[key]) for line in run.lines
        if is_number(line.get(key)) and is_number(line.get("step"))
    ]  # fmt: skip


def _samples(run: StageRun) -> list[list[tuple[Any, str, str]]]:
    """Of each prompt (step, prompt, what the model went on with), from step to step."""
    taken = [(x.get("step"), x["samples"]) for x in run.lines if isinstance(x.get("samples"), list)]
    prompts = [str(prompt) for prompt in run.config.get("sample_prompts") or []]
    rows = []
    for i in range(max((len(texts) for _, texts in taken), default=0)):
        pairs = [(step, str(texts[i])) for step, texts in taken if i < len(texts)]
        prompt = prompts[i] if i < len(prompts) else ""
        cut = lambda text, p: (p, text[len(p) :]) if text.startswith(p) else ("", text)
        rows.append([(step, *cut(text, prompt)) for step, text in pairs])
    return rows


def _shown(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "none"
    return "empty" if value == "" else str(value)


def _four(value: Any) -> str | None:
    return f"{value:.4f}" if isinstance(value, int | float) else None
