"""The table of scores: every metric of every stage as a bar, with its interval and chance."""

from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from nanochat_jax.report import about, text
from nanochat_jax.report.runs import SCORED
from nanochat_jax.report.templates import render
from nanochat_jax.results import Check, Score

# What the marks mean, of those that there are.
NOTES = {
    "interval": "The small range beside a value is its 95 % interval.",
    "chance": "A dotted mark is what guessing scores.",
    "best": "Bold: the best stage.",
}


def table(
    scores: Mapping[str, Mapping[str, Score]], checks: Sequence[tuple[str, Check]] = ()
) -> Markup:
    """Metrics down, stages across; stages that were never scored are left out. Below it, by stage,
    what was found when a score was doubted."""
    stages = [s for s in SCORED if any(s in cells for cells in scores.values())]
    rows = {name: {s: _cell(cells, s) for s in stages} for name, cells in scores.items()}
    found = [cell for row in rows.values() for cell in row.values() if cell]
    notes = [note for mark, note in NOTES.items() if any(cell[mark] for cell in found)]
    return render(
        "scores.html", stages=stages, rows=rows, about=about.line, notes=notes, checks=checks
    )


def _cell(cells: Mapping[str, Score], stage: str) -> dict[str, Any] | None:
    """What a cell shows; its bar is on a scale to 1, or for what can exceed 1 to the row's most."""
    if stage not in cells:
        return None
    score, share = cells[stage], cells[stage].unit == "share"
    # Shares of one scale can be compared down the table, not only across.
    full = max(1.0, *(s.value for s in cells.values()))
    inside = lambda x: min(1.0, max(0.0, x / full))
    percent = lambda x: f"{100 * x:.2f}%"
    cell = {
        "words": text.score(score), "best": stage == _best(cells),
        "shown": f"{100 * score.value:.1f}%" if share else f"{score.value:.4f}",
        "width": percent(inside(score.value)), "interval": None,
        "chance": percent(inside(score.chance)) if score.chance else None,
    }  # fmt: skip
    if score.low is not None and score.high is not None:
        ends = [f"{100 * x:.1f}" if share else f"{x:.3f}" for x in (score.low, score.high)]
        low, high = inside(score.low), inside(score.high)
        cell |= {"interval": "–".join(ends), "low": percent(low), "range": percent(high - low)}
    return cell


def _best(cells: Mapping[str, Score]) -> str | None:
    """The stage that did best, where it is one of several."""
    goodness = {s: -x.value if x.lower_is_better else x.value for s, x in cells.items()}
    first = [s for s, value in goodness.items() if value == max(goodness.values())]
    return first[0] if len(first) == 1 and len(cells) > 1 else None
