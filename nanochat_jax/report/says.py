"""What the assistant says now: its last stage's exchanges, wrong ones first."""

import itertools
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from markupsafe import Markup

from nanochat_jax.report.runs import SCORED, ReportCard
from nanochat_jax.report.templates import render
from nanochat_jax.results import EVALUATION, Exchange
from nanochat_jax.tokenizer.chat_format import Part, parse

TEXT_SHOWN = 1200  # characters of a text: a model that never stops must not fill the page
WRONG_FIRST, RIGHT_FIRST = 2, 1  # of a kind, on top
KEPT = 60  # of a kind, where all are to be seen


class Kind(NamedTuple):
    """The exchanges of one kind, wrong ones first; `right` of `judged` are right."""

    name: str
    exchanges: Sequence[Exchange]
    right: int
    judged: int

    @property
    def slug(self) -> str:
        """Its place in the page's address."""
        return "says-" + "".join(c if c.isalnum() else "-" for c in self.name.lower())


def last_stage(report: ReportCard) -> str | None:
    """The last stage with exchanges, from which people talk to the model."""
    has = lambda stage: (s := report.sections.get(EVALUATION[stage])) and s.section.exchanges
    return next(filter(has, reversed(SCORED)), None)


def kinds_of(exchanges: Iterable[Exchange]) -> list[Kind]:
    """Those with the smallest share of right answers first; what nobody judged comes last."""
    key = lambda exchange: exchange.kind
    grouped = itertools.groupby(sorted(exchanges, key=key), key)
    return sorted((_kind(name, list(group)) for name, group in grouped), key=_share)


def first_ones(kinds: Sequence[Kind]) -> list[Exchange]:
    """Some of every kind: all wrong ones before all right ones."""
    of = lambda kind, right: [e for e in kind.exchanges if e.right is right]
    wrong = [e for kind in kinds for e in of(kind, False)[:WRONG_FIRST]]
    right = [e for kind in kinds for e in of(kind, True)[:RIGHT_FIRST]]
    return wrong + right + [e for kind in kinds for e in of(kind, None)[:WRONG_FIRST]]


def view(report: ReportCard) -> Markup | None:
    """The section that opens the page; None where nothing was asked."""
    if (stage := last_stage(report)) is None:
        return None
    stored = report.sections[EVALUATION[stage]].section
    kinds = kinds_of(stored.exchanges)
    run = next((run for run in report.runs if run.stage == stage), None)
    return render(
        "says.html", stage=stage, run=run, kinds=kinds, shown=first_ones(kinds), bubbles=bubbles,
        answers=stored.answers, longest=TEXT_SHOWN, most=KEPT,
        right=sum(kind.right for kind in kinds), judged=sum(kind.judged for kind in kinds),
    )  # fmt: skip


def opening(report: ReportCard) -> list[str]:
    """The same for `report.md`."""
    if (stage := last_stage(report)) is None:
        return []
    told = lines(report.sections[EVALUATION[stage]].section.exchanges)
    return ["\n".join(["## What it says now", "", *told, ""])]


def bubbles(reply: str) -> Iterator[tuple[str, str, str]]:
    """(text, call, result): pieces of a reply, each some text and maybe a tool call after it."""
    text = call = result = ""
    for kind, piece in [*parse(reply[:TEXT_SHOWN]), Part("text", "")]:
        if kind == "python_output":
            result = piece
        elif text or call:
            yield text, call, result
            text = call = result = ""
        if kind == "python":
            call = piece
        elif kind == "text":
            text = piece


def plain(reply: str) -> str:
    """A reply on one line, tool calls in brackets: `[12+30=42] That makes 42.`"""
    spoken = (
        f"{text}[{call}={result}] " if call else text for text, call, result in bubbles(reply)
    )
    return "".join(spoken).replace("\n", " ").strip()


def lines(exchanges: Iterable[Exchange]) -> list[str]:
    """Exchanges as a Markdown list, the first ones of each kind."""
    mark = {True: ", right", False: ", wrong", None: ""}
    return [
        f"- {e.kind}{mark[e.right]}: `{e.question}` -> `{plain(e.reply)}`"
        + (f" (expected: `{e.wanted}`)" if e.right is False and e.wanted else "")
        for e in first_ones(kinds_of(exchanges))
    ]


def _kind(name: str, group: Sequence[Exchange]) -> Kind:
    judged = [e for e in group if e.right is not None]
    ordered = sorted(group, key=lambda e: e.right is not False)
    return Kind(name, ordered, sum(bool(e.right) for e in judged), len(judged))


def _share(kind: Kind) -> tuple[float, str]:
    return (kind.right / kind.judged if kind.judged else 2.0, kind.name)
