"""The report as one HTML file that opens without a network: pure, from what `runs` gathered."""

import base64
import hashlib
import importlib.resources
from typing import NamedTuple

from markupsafe import Markup

from nanochat_jax.report import machine, markdown, rollouts, says, score_table, stage_view, text
from nanochat_jax.report.charts import number
from nanochat_jax.report.runs import ReportCard
from nanochat_jax.report.templates import render
from nanochat_jax.report.text import duration

REST = "all else: data, tokenizer, compiling, scores"


def page(report: ReportCard) -> str:
    """The whole file. Its policy lets the browser load nothing and run only the page's script."""
    script = _file("page.js")
    return render(
        "page.html", style=_file("page.css"), script=script, policy=_policy(script),
        # The last run's tag: what this model is called.
        name=report.runs[-1].tag if report.runs else "Nothing trained yet",
        figures=_figures(report), runs=report.runs, duration=duration,
        machine=machine.in_a_line(report.machine), timeline=_timeline(report),
        says=says.view(report),
        scores=score_table.table(report.scores, report.checks) if report.scores else None,
        stages=map(stage_view.view, report.runs),
        rollouts=[rollouts.view(run) for run in report.runs if run.rollouts],
        words=_words(report), generated=report.generated,
    )  # fmt: skip


def _figures(report: ReportCard) -> dict[str, str]:
    """What stands at the top, as far as it is known."""
    seconds, cost, rate = report.wall_clock_s, report.cost, report.machine.dollars_per_hour or 0
    parameters = max((run.parameters or 0 for run in report.runs), default=0)
    tokens = sum(run.tokens for run in report.runs)
    figures = {
        "from text to chat": "" if seconds is None else duration(seconds),
        f"at ${rate:,.2f} an hour": "" if cost is None else f"${cost:,.2f}",
        "parameters": number(parameters) if parameters else "",
        "tokens of training": number(tokens) if tokens else "",
    }
    return {what: value for what, value in figures.items() if value}


class Span(NamedTuple):
    """A piece of the bar of time."""

    stage: str
    name: str
    seconds: float


def _timeline(report: ReportCard) -> list[Span]:
    """Training by stage and all the rest, which together are the time at the top."""
    spans = [Span(run.stage, run.name, run.train_s) for run in report.runs if run.train_s > 0]
    # Reinforcement learning is not in the time at the top: see `ReportCard.wall_clock_s`.
    counted = sum(span.seconds for span in spans if span.stage != "rl")
    rest = (report.wall_clock_s or 0) - counted
    # Below zero where a stage was trained before the report began.
    return [*spans, Span("rest", REST, rest)] if spans and rest > 1 else spans


def _words(report: ReportCard) -> dict[str, Markup]:
    """The markdown report by title, to unfold."""
    # A section's own heading is the title.
    bodies = {title: text.section(x).split("\n", 1)[-1] for title, x in report.sections.items()}
    bodies = {"The machine": text.header(report.machine), **bodies}
    return {title: markdown.render(body) for title, body in bodies.items()}


def _policy(script: str) -> str:
    # Models and people wrote much of the page. Should a text slip through the escaping, the browser
    # still runs no script but ours, by its hash, and asks no server for anything.
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return (
        "default-src 'none'; base-uri 'none'; form-action 'none'; "
        f"style-src 'unsafe-inline'; script-src 'sha256-{digest}'"
    )


def _file(name: str) -> Markup:
    """One of this package's own files, to stand in the page as it is."""
    folder = importlib.resources.files("nanochat_jax.report") / "page_files"
    return Markup((folder / name).read_text(encoding="utf-8"))
