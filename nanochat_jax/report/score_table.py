"""The table of scores: every metric of every stage as a bar, with its interval and chance."""

import dataclasses
import re
from collections.abc import Mapping

from nanochat_jax.evals.chatcore.catalog import BASELINES
from nanochat_jax.evals.shares import wilson
from nanochat_jax.report.html import Html, tag
from nanochat_jax.report.sections import STAGES

NUMBER = r"-?\d+(?:\.\d+)?"
VALUE = re.compile(rf"({NUMBER})(%?)")
AROUND = re.compile(rf"±\s*({NUMBER})")
BETWEEN = re.compile(rf"({NUMBER})%?\s*(?:to|-|–|,)\s*({NUMBER})")
COUNT = re.compile(r"n\s*=\s*(\d[\d,]*)")
LOWER_IS_BETTER = ("val bpb",)


@dataclasses.dataclass(frozen=True)
class Score:
    """A score as told: its value and 95 % interval; shares where `percent`, which 100 % is 1."""

    value: float
    low: float | None
    high: float | None
    percent: bool

    @classmethod
    def parse(cls, text: str) -> "Score | None":
        """Reads `0.12 (±0.01)`, `31.2% (29.0 to 33.5)`, `97.5% (n=40)`; None if it is no number.

        A share without an interval whose n is told gets Wilson's.
        """
        found = VALUE.match(text)
        if found is None:
            return None
        percent, rest = found[2] == "%", COUNT.sub("", text[found.end() :])
        scale = 0.01 if percent else 1.0
        value, low, high = scale * float(found[1]), None, None
        if around := AROUND.search(rest):
            low, high = value - scale * float(around[1]), value + scale * float(around[1])
        elif between := BETWEEN.search(rest):
            low, high = scale * float(between[1]), scale * float(between[2])
        elif percent and (count := COUNT.search(text)) and 0 <= value <= 1:
            n = int(count[1].replace(",", ""))
            low, high = wilson(round(value * n), n) if n else (None, None)
        return cls(value, low, high, percent)


def table(scores: Mapping[str, Mapping[str, str]]) -> Html:
    """Metrics down, stages across; stages that were never scored are left out."""
    stages = [s for s in STAGES if any(s in cells for cells in scores.values())]
    head = tag("tr", tag("th", "Metric"), *(tag("th", s.upper(), class_=f"of-{s}") for s in stages))
    rows = []
    for name, cells in scores.items():
        parsed = {s: Score.parse(text) for s, text in cells.items()}
        top = max((p.value for p in parsed.values() if p), default=1.0)
        best = _best(name, {s: p.value for s, p in parsed.items() if p})
        shown = (_cell(name, cells.get(s), parsed.get(s), top, s, s == best) for s in stages)
        rows.append(tag("tr", tag("th", name, scope="row"), *shown))
    return tag("div", tag("table", tag("thead", head), tag("tbody", *rows)), class_="wide scores")


def _best(name: str, values: Mapping[str, float]) -> str | None:
    """The stage that did best, where it is one of several."""
    choose = min if name in LOWER_IS_BETTER else max
    first = [s for s, value in values.items() if value == choose(values.values())]
    return first[0] if len(first) == 1 and len(values) > 1 else None


def _cell(
    name: str, text: str | None, score: Score | None, top: float, stage: str, best: bool
) -> Html:
    if text is None:
        return tag("td", "–", class_="none")
    if score is None:
        return tag("td", text)
    told = f"{100 * score.value:.1f}%" if score.percent else text.split(" ")[0]
    value = tag("b" if best else "span", told)
    return tag(
        "td", value, _interval(score), _bar(name, score, top), class_=f"of-{stage}", title=text
    )


def _interval(score: Score) -> Html | None:
    if score.low is None or score.high is None:
        return None
    scale, digits = (100, 1) if score.percent else (1, 3)
    return tag("small", f"{scale * score.low:.{digits}f}–{scale * score.high:.{digits}f}")


def _bar(name: str, score: Score, top: float) -> Html:
    """The value on a scale to 1, or for what can exceed 1 to the largest of the row."""
    full = max(1.0, top)
    place = lambda x: f"{100 * min(1.0, max(0.0, x / full)):.2f}%"
    parts = [tag("i", class_="value", style=f"width:{place(score.value)}")]
    if score.low is not None and score.high is not None:
        width = f"{100 * (min(1.0, score.high / full) - max(0.0, score.low / full)):.2f}%"
        parts.append(tag("i", class_="range", style=f"left:{place(score.low)};width:{width}"))
    if chance := BASELINES.get(name):
        parts.append(tag("i", class_="chance", style=f"left:{place(chance / 100)}"))
    return tag("div", *parts, class_="bar", aria_hidden="true")
