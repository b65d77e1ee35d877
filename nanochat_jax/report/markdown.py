"""The markdown that sections are written in, as elements: headings, lists, tables, code, text."""

import re
from collections.abc import Iterator

from nanochat_jax.report.html import Html, join, tag

# Our own few elements and no library of Markdown: those pass HTML through, and much of the text
# here is what a model wrote.
CODE = re.compile(r"(`[^`]*`)")
RULE = re.compile(r"\|[\s:|-]+\|")


def render(text: str) -> Html:
    """The elements of a text; its own headings come two levels lower, whatever it says is text."""
    blocks = []
    for block in re.split(r"\n\s*\n", text):
        blocks += _block([line for line in block.splitlines() if line.strip()])
    return join(*blocks)


def _block(lines: list[str]) -> Iterator[Html]:
    while lines:
        kind = _kind(lines[0])
        count = 1
        while kind != "heading" and count < len(lines) and _kind(lines[count]) == kind:
            count += 1
        yield MADE[kind](lines[:count])
        lines = lines[count:]


def _kind(line: str) -> str:
    if line.startswith("#"):
        return "heading"
    if line.startswith("|") and line.rstrip().endswith("|"):
        return "table"
    return "list" if line[:2] in ("- ", "* ") else "rule" if line.strip() == "---" else "text"


def _heading(lines: list[str]) -> Html:
    level = len(lines[0]) - len(lines[0].lstrip("#"))
    return tag(f"h{min(level + 2, 6)}", *_inline(lines[0].lstrip("# ")))


def _list(lines: list[str]) -> Html:
    return tag("ul", *(tag("li", *_inline(line[2:])) for line in lines))


def _table(lines: list[str]) -> Html:
    rows = [
        re.split(r"(?<!\\)\|", line.strip()[1:-1]) for line in lines if not RULE.fullmatch(line)
    ]
    cells = lambda name, row: tag("tr", *(tag(name, *_inline(c.strip())) for c in row))
    head, body = rows[:1], rows[1:]
    return tag(
        "div",
        tag("table", *(cells("th", r) for r in head), *(cells("td", r) for r in body)),
        class_="wide",
    )


def _text(lines: list[str]) -> Html:
    return tag("p", *_inline(" ".join(lines)))


def _inline(text: str) -> list[Html | str]:
    parts = CODE.split(text)
    return [tag("code", p[1:-1]) if i % 2 else p for i, p in enumerate(parts)]


MADE = {
    "heading": _heading, "list": _list, "table": _table, "text": _text,
    "rule": lambda lines: Html(""),
}  # fmt: skip
