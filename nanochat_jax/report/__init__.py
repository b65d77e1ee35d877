"""The report card: one section a stage, a summary table, curves, and what it all took.

Sections lie as markdown files in `report/`; `generate` joins them into `report.md`, and draws
`report.html` from them and from what the runs left beside their checkpoints.
Source: nanochat `nanochat/report.py` (the layout of `report.md`).
"""

import pathlib
import shutil

from nanochat_jax.report import machine, page, runs, sections
from nanochat_jax.report import summary as summaries
from nanochat_jax.report.sections import ORDER, has, log, score_lines

__all__ = ["ORDER", "generate", "has", "log", "reset", "score_lines", "summary"]


def reset(root: pathlib.Path) -> None:
    """Begins a new report: the old sections go, the header tells of this machine and moment."""
    folder = sections.folder(root)
    folder.mkdir(parents=True, exist_ok=True)
    for path in (*(sections.file(root, t) for t in ORDER), *_products(root)):
        path.unlink(missing_ok=True)
    (folder / "header.md").write_text(machine.header(), encoding="utf-8")


def generate(
    root: pathlib.Path, copy_to: pathlib.Path | None = None, *, price: float | None = None
) -> pathlib.Path:
    """Writes `report/report.md` and `report/report.html`, and copies the first to `copy_to`.

    Args:
        copy_to: a folder; default: the working directory.
        price: dollars an hour of this machine, kept for later calls.

    Returns the path of the markdown. What is missing is left out.
    """
    header = _header(root, price)
    parts = [header, *(sections.read(root, t) for t in ORDER if has(root, t))]
    parts.append(summaries.text(root, header))
    markdown, html = _products(root)
    markdown.write_text("\n".join(parts), encoding="utf-8")
    html.write_text(page.page(runs.gather(root, header)), encoding="utf-8")
    shutil.copy(markdown, (copy_to or pathlib.Path.cwd()) / "report.md")
    return markdown


def summary(path: pathlib.Path) -> str:
    """The last section of a report on disk."""
    return path.read_text(encoding="utf-8").split("## Summary\n", 1)[-1].strip()


def _header(root: pathlib.Path, price: float | None) -> str:
    path = sections.folder(root) / "header.md"
    path.parent.mkdir(parents=True, exist_ok=True)
    text = path.read_text(encoding="utf-8") if path.exists() else machine.header()
    if price is not None:
        text = machine.with_price(text, price)
        path.write_text(text, encoding="utf-8")
    return text


def _products(root: pathlib.Path) -> tuple[pathlib.Path, pathlib.Path]:
    return sections.folder(root) / "report.md", sections.folder(root) / "report.html"
