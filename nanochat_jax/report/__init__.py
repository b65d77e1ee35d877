"""The report card: what every stage found, a table of all scores, curves, and what it all took.

Stages and evaluations leave their sections as JSON in `report/`; `generate` draws `report.md` and
`report.html` from them and from what the runs left beside their checkpoints.
Source: nanochat `nanochat/report.py` (the layout of `report.md`).
"""

import pathlib
import shutil

from nanochat_jax import files
from nanochat_jax.config import paths
from nanochat_jax.report import page, runs, stored, text
from nanochat_jax.report.stored import begun, has, write
from nanochat_jax.report.text import check_lines, score_lines
from nanochat_jax.results import Section

__all__ = [
    "begun",
    "check_lines",
    "generate",
    "has",
    "reset",
    "score_lines",
    "section",
    "summary",
    "write",
]


def reset(root: pathlib.Path) -> None:
    """Begins a new report: the old sections go, the header is of this machine and moment."""
    stored.clear(root)
    for path in _products(root):
        path.unlink(missing_ok=True)


def generate(
    root: pathlib.Path, copy_to: pathlib.Path | None = None, *, price: float | None = None
) -> pathlib.Path:
    """Writes `report/report.md` and `report/report.html`, and copies the first to `copy_to`.

    Args:
        copy_to: a folder; default: the working directory.
        price: dollars an hour of this machine, kept for later calls; ValueError below zero.

    Returns the path of the Markdown. What is missing is left out.

    Raises:
        FileNotFoundError: nothing was trained or scored here; nothing is written then.
    """
    report = runs.gather(root)
    if not (report.sections or report.runs):
        raise FileNotFoundError(
            f"no run to report on in {root}; expected what `make speedrun` or `python -m "
            "scripts.train --stage base` leaves there. A run elsewhere: NANOCHAT_BASE_DIR=... "
            "python -m scripts.report"
        )
    if price is not None:
        stored.set_price(root, price)
        report = runs.gather(root)
    markdown, html = _products(root)
    files.write_text(markdown, text.report(report))
    files.write_text(html, page.page(report))
    shutil.copy(markdown, (copy_to or pathlib.Path.cwd()) / "report.md")
    return markdown


def section(found: Section) -> str:
    """A section of now, as Markdown."""
    return text.section(stored.Stored(found, stored.now()))


def summary(root: pathlib.Path) -> str:
    """The table of scores and the totals, as Markdown."""
    return text.summary(runs.gather(root))


def _products(root: pathlib.Path) -> tuple[pathlib.Path, pathlib.Path]:
    return paths.report(root) / "report.md", paths.report(root) / "report.html"
