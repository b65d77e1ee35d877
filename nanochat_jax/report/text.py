"""The report as Markdown: pure, from what `runs` gathered."""

from collections.abc import Iterable, Mapping
from typing import Any

from nanochat_jax.report import about, machine, says
from nanochat_jax.report.machine import Machine
from nanochat_jax.report.runs import SCORED, ReportCard
from nanochat_jax.report.stored import Stored
from nanochat_jax.results import Check, Score


def report(report: ReportCard) -> str:
    """The whole of `report.md`."""
    top = f"# nanochat-jax report\n\n{machine.in_a_line(report.machine)}\n"
    told = says.opening(report)
    scores = f"## Summary\n\n{summary(report)}\n"
    sections = [section(stored) for stored in report.sections.values()]
    return "\n".join([top, *told, scores, header(report.machine), *sections])


def header(machine: Machine) -> str:
    """What the report ran on."""
    lines = ["## Environment", ""]
    for title, facts in machine.shown().items():
        lines += [f"### {title}", "", *_list(facts), ""]
    return "\n".join([*lines, f"Run started: {machine.started}", "", "---", ""])


def section(stored: Stored) -> str:
    """One section: scores, settings, figures, the table of single tasks, texts."""
    found = stored.section
    blocks = [
        score_lines(found.scores), *("\n".join(_list(x)) for x in (found.settings, found.figures)),
        _table(found.details), check_lines(found.checks), *found.texts,
        "\n".join(says.lines(found.exchanges)),
    ]  # fmt: skip
    lines = [f"## {found.title}", f"timestamp: {stored.written}", ""]
    return "\n".join(lines + [line for block in blocks if block for line in (block, "")])


def score_lines(scores: Iterable[Score]) -> str:
    """A line for each score."""
    return "\n".join(f"* {s.name}: {score(s)}" for s in scores)


def check_lines(checks: Iterable[Check]) -> str:
    """The small print, a line for each check."""
    return "\n".join(f"- {check.score}: {check.says}" for check in checks)


def score(s: Score) -> str:
    """`31.50% (29.0 to 34.1)`, `97.5% (n=40)`, `0.1234 (±0.0100)`, `0.2862`."""
    if s.unit != "share":
        half = None if s.low is None or s.high is None else (s.high - s.low) / 2
        return f"{s.value:.4f}" + ("" if half is None else f" (±{half:.4f})")
    if s.count_shown or s.low is None or s.high is None:
        return f"{100 * s.value:.1f}%" + (f" (n={s.n})" if s.n else "")
    return f"{100 * s.value:.2f}% ({_interval(s)})"


def summary(report: ReportCard) -> str:
    """Every score of every stage in one table, and what it all took."""
    rows = [["Metric", *(stage.upper() for stage in SCORED)]]
    for name, cells in report.scores.items():
        shown = (score(cells[stage]) if stage in cells else "-" for stage in SCORED)
        rows.append([name, *shown])
    known = [f"- {name}: {about.line(name)}" for name in report.scores if about.line(name)]
    known += [f"- {stage.upper()}, {check.score}: {check.says}" for stage, check in report.checks]
    lines = [*_rows(rows), "", *known, *[""] * bool(known)]
    lines += [f"Total wall clock time: {duration(report.wall_clock_s)}"]
    if report.cost is not None:
        rate = report.machine.dollars_per_hour
        lines.append(f"Total cost: ${report.cost:,.2f}, at ${rate:,.2f} an hour")
    return "\n".join(lines)


def duration(seconds: float | None) -> str:
    """`1h02m` or `7m31s`; `unknown`."""
    if seconds is None:
        return "unknown"
    hours, minutes = int(seconds) // 3600, int(seconds) % 3600 // 60
    return f"{hours}h{minutes:02d}m" if hours else f"{minutes}m{int(seconds) % 60:02d}s"


def _table(scores: Iterable[Score]) -> str:
    """Shares of single tasks, centered where chance is known; empty without any."""
    scores = list(scores)
    more = list(dict.fromkeys(name for s in scores for name in s.also))
    head = ["task", "accuracy %", "95 % interval", "centered", "n", *(f"{m} %" for m in more)]
    rows = [
        [
            s.name, f"{100 * s.value:.2f}", _interval(s), f"{s.centered:.4f}", str(s.n),
            *(f"{100 * s.also[m]:.2f}" if m in s.also else "-" for m in more),
        ]
        for s in scores
    ]  # fmt: skip
    return "\n".join(_rows([head, *rows])) if rows else ""


def _rows(rows: Iterable[list[str]]) -> list[str]:
    """A Markdown table; the first row is its head."""
    head, *body = rows
    line = lambda row: f"| {' | '.join(row)} |"
    return [line(head), "|---" * len(head) + "|", *map(line, body)]


def _interval(s: Score) -> str:
    return "-" if s.low is None or s.high is None else f"{100 * s.low:.1f} to {100 * s.high:.1f}"


def _list(values: Mapping[str, Any]) -> list[str]:
    return [f"- {key}: {_show(value)}" for key, value in values.items()]


def _show(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4f}" if abs(value) >= 1e-3 or value == 0 else f"{value:.3g}"
    if isinstance(value, int) and not isinstance(value, bool) and value >= 10000:
        return f"{value:,}"
    return str(value)
