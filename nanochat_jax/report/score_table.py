"""The table of scores: every metric of every stage as a bar, with its interval and chance."""

from collections.abc import Mapping

from nanochat_jax.report import text
from nanochat_jax.report.html import Html, tag
from nanochat_jax.report.runs import SCORED
from nanochat_jax.results import Score


def table(scores: Mapping[str, Mapping[str, Score]]) -> Html:
    """Metrics down, stages across; stages that were never scored are left out."""
    stages = [s for s in SCORED if any(s in cells for cells in scores.values())]
    head = tag("tr", tag("th", "Metric"), *(tag("th", s.upper(), class_=f"of-{s}") for s in stages))
    rows = []
    for name, cells in scores.items():
        top, best = max(s.value for s in cells.values()), _best(cells)
        shown = (_cell(cells.get(stage), top, stage, stage == best) for stage in stages)
        rows.append(tag("tr", tag("th", name, scope="row"), *shown))
    return tag("div", tag("table", tag("thead", head), tag("tbody", *rows)), class_="wide scores")


def _best(cells: Mapping[str, Score]) -> str | None:
    """The stage that did best, where it is one of several."""
    goodness = {s: -x.value if x.lower_is_better else x.value for s, x in cells.items()}
    first = [s for s, value in goodness.items() if value == max(goodness.values())]
    return first[0] if len(first) == 1 and len(cells) > 1 else None


def _cell(score: Score | None, top: float, stage: str, best: bool) -> Html:
    if score is None:
        return tag("td", "–", class_="none")
    shown = f"{100 * score.value:.1f}%" if score.unit == "share" else f"{score.value:.4f}"
    parts = tag("b" if best else "span", shown), _interval(score), _bar(score, top)
    return tag("td", *parts, class_=f"of-{stage}", title=text.score(score))


def _interval(score: Score) -> Html | None:
    if score.low is None or score.high is None:
        return None
    scale, digits = (100, 1) if score.unit == "share" else (1, 3)
    return tag("small", f"{scale * score.low:.{digits}f}–{scale * score.high:.{digits}f}")


def _bar(score: Score, top: float) -> Html:
    """The value on a scale to 1, or for what can exceed 1 to the largest of the row."""
    # Shares of one scale can be compared down the table, not only across.
    full = max(1.0, top)
    place = lambda x: f"{100 * min(1.0, max(0.0, x / full)):.2f}%"
    parts = [tag("i", class_="value", style=f"width:{place(score.value)}")]
    if score.low is not None and score.high is not None:
        width = f"{100 * (min(1.0, score.high / full) - max(0.0, score.low / full)):.2f}%"
        parts.append(tag("i", class_="range", style=f"left:{place(score.low)};width:{width}"))
    if score.chance:
        parts.append(tag("i", class_="chance", style=f"left:{place(score.chance)}"))
    return tag("div", *parts, class_="bar", aria_hidden="true")
