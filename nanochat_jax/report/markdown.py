"""The markdown that sections are written in, as elements: headings, lists, tables, code, text."""

import itertools
import re
from collections.abc import Iterator, Sequence

from markupsafe import Markup

from nanochat_jax.report.templates import render as rendered

# Our own few elements and no library of Markdown: those pass HTML through, and much of the text
# here is what a model wrote.
CODE = re.compile(r"(`[^`]*`)")
RULE = re.compile(r"\|[\s:|-]+\|")


def render(text: str) -> Markup:
    """The elements of a text; its own headings come two levels lower, whatever it says is text."""
    return rendered("markdown.html", blocks=_blocks(text), code=CODE, rows=_rows)


def _blocks(text: str) -> Iterator[tuple[str, list[str]]]:
    """(kind, lines), for each heading and for neighbouring lines of another kind."""
    for kind, lines in itertools.groupby(text.splitlines(), _kind):
        lines = list(lines)
        yield from ((kind, [line]) for line in lines) if kind == "heading" else [(kind, lines)]


def _kind(line: str) -> str:
    if line.startswith("#"):
        return "heading"
    if line.startswith("|") and line.rstrip().endswith("|"):
        return "table"
    return "list" if line[:2] in ("- ", "* ") else "" if line.strip() in ("", "---") else "text"


def _rows(lines: Sequence[str]) -> list[list[str]]:
    """The cells of a table's rows but its rule."""
    return [re.split(r"(?<!\\)\|", x.strip()[1:-1]) for x in lines if not RULE.fullmatch(x)]
