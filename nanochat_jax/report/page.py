"""The report as one HTML file that opens without a network: pure, from what `runs` gathered."""

import base64
import hashlib
import importlib.resources

from nanochat_jax.report import markdown, rollouts, score_table, stage_view, text
from nanochat_jax.report.charts import number
from nanochat_jax.report.html import Html, join, tag
from nanochat_jax.report.runs import ReportCard
from nanochat_jax.report.text import duration

DOCTYPE = Html("<!doctype html>\n")


def page(report: ReportCard) -> str:
    """The whole file. Its policy lets the browser load nothing and run only the page's script."""
    style, script = _file("page.css"), _file("page.js")
    views = [
        _head(report),
        _scores(report),
        *(stage_view.view(run) for run in report.runs),
        *(rollouts.view(run) for run in report.runs),
        _words(report),
    ]
    shown = [view for view in views if view]
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", http_equiv="Content-Security-Policy", content=_policy(script)),
        tag("title", f"{_name(report)} · nanochat-jax report"),
        tag("style", style),
    )
    body = tag("body", tag("main", *shown), tag("script", script))
    return join(DOCTYPE, tag("html", head, body, lang="en"), Html("\n"))


def _head(report: ReportCard) -> Html:
    cost = f"${report.cost:,.2f}" if report.cost is not None else None
    figures = {
        "from text to chat": None if report.wall_clock_s is None else duration(report.wall_clock_s),
        f"at ${report.machine.dollars_per_hour or 0:,.2f} an hour": cost,
        "parameters": _known(max((run.parameters or 0 for run in report.runs), default=0)),
        "tokens of training": _known(sum(run.tokens for run in report.runs)),
    }
    shown = [tag("li", tag("b", v), tag("span", k)) for k, v in figures.items() if v]
    links = [
        tag("a", stage_view.NAMES.get(r.stage, r.stage), href=f"#{r.stage}") for r in report.runs
    ]
    return tag(
        "header",
        tag("p", "nanochat-jax report", class_="kicker"),
        tag("h1", _name(report)),
        tag("ul", *shown, class_="figures") if shown else None,
        _timeline(report),
        tag(
            "nav",
            tag("a", "Scores", href="#scores") if report.scores else None,
            *links,
            tag("a", "Rollouts", href="#rollouts")
            if any(r.rollouts for r in report.runs)
            else None,
            tag("a", "In words", href="#words"),
        ),
    )


def _name(report: ReportCard) -> str:
    """The last run's tag: what this model is called."""
    return report.runs[-1].tag if report.runs else "Nothing trained yet"


def _timeline(report: ReportCard) -> Html | None:
    """Training time by stage, as parts of one bar."""
    timed = [run for run in report.runs if run.train_s > 0]
    total = sum(run.train_s for run in timed)
    if not total:
        return None
    parts = [
        tag(
            "li",
            tag("b", stage_view.NAMES.get(run.stage, run.stage)),
            tag("span", duration(run.train_s)),
            class_=f"of-{run.stage}",
            style=f"flex-grow:{run.train_s / total:.4f}",
        )
        for run in timed
    ]
    return tag("ol", *parts, class_="timeline", aria_label="training time by stage")


def _scores(report: ReportCard) -> Html | None:
    if not report.scores:
        return None
    note = "Under each value its 95 % interval where the number of questions is known. "
    note += "A dotted mark is what guessing scores; lower is better for bits per byte alone."
    return tag(
        "section",
        tag("h2", "Scores"),
        score_table.table(report.scores),
        tag("p", note, class_="note"),
        id="scores",
    )


def _words(report: ReportCard) -> Html:
    """The markdown report, to unfold."""
    machine = markdown.render(text.header(report.machine))
    parts = [tag("details", tag("summary", "The machine"), machine)]
    for title, stored in report.sections.items():
        body = text.section(stored).split("\n", 1)[-1]  # its heading is the summary's
        parts.append(tag("details", tag("summary", title), markdown.render(body)))
    made = tag("p", f"Generated {report.generated}.", class_="note")
    return tag("section", tag("h2", "In words"), *parts, made, id="words")


def _known(value: int) -> str | None:
    return number(value) if value else None


def _policy(script: str) -> str:
    # Models and people wrote much of the page. Should a text slip through the escaping, the browser
    # still runs no script but ours, by its hash, and asks no server for anything.
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return (
        "default-src 'none'; base-uri 'none'; form-action 'none'; "
        f"style-src 'unsafe-inline'; script-src 'sha256-{digest}'"
    )


def _file(name: str) -> Html:
    """One of this package's own files, to stand in the page as it is."""
    folder = importlib.resources.files("nanochat_jax.report") / "page_files"
    return Html((folder / name).read_text(encoding="utf-8"))
