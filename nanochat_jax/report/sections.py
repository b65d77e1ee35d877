"""The sections of the report on disk: one markdown file each, written by the stage it tells of."""

import datetime
import pathlib
import re
from collections.abc import Mapping, Sequence
from typing import Any

ORDER = (
    "Data", "Tokenizer training", "Tokenizer evaluation",
    "Base model training", "Base model evaluation",
    "Midtraining", "Chat evaluation mid", "Chat SFT", "Chat evaluation sft",
    "Chat RL", "Chat evaluation rl",
)  # fmt: skip
STAGES = ("base", "mid", "sft", "rl")
SCORES_OF = {
    "base": "Base model evaluation", "mid": "Chat evaluation mid", "sft": "Chat evaluation sft",
    "rl": "Chat evaluation rl",
}  # fmt: skip
STAMP = "%Y-%m-%d %H:%M:%S"
SCORE = re.compile(r"^\* (.+?): (-?\d[\d.]*%?(?: \(.*\))?)$", re.MULTILINE)
WRITTEN = re.compile(r"^timestamp: (.+)$", re.MULTILINE)


def folder(root: pathlib.Path) -> pathlib.Path:
    """Where the report of a base directory lies."""
    return root / "report"


def file(root: pathlib.Path, title: str) -> pathlib.Path:
    """The file of a section."""
    return folder(root) / f"{title.lower().replace(' ', '-')}.md"


def log(root: pathlib.Path, title: str, items: Sequence[str | Mapping[str, Any]]) -> None:
    """Writes (or rewrites) a section: texts as they are, dicts as a list of `- key: value`."""
    lines = [f"## {title}", f"timestamp: {now()}", ""]
    for item in filter(None, items):
        if isinstance(item, str):
            lines.append(item)
        else:
            lines += [f"- {key}: {_show(value)}" for key, value in item.items()]
        lines.append("")
    path = file(root, title)
    path.parent.mkdir(parents=True, exist_ok=True)
    # A model can write half a character, which no file can hold: it becomes a question mark.
    path.write_text("\n".join(lines), encoding="utf-8", errors="replace")


def has(root: pathlib.Path, title: str) -> bool:
    """Whether a section was written since the last reset."""
    return file(root, title).exists()


def read(root: pathlib.Path, title: str) -> str:
    """A section's text; empty without one."""
    path = file(root, title)
    return path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""


def written(root: pathlib.Path, title: str) -> datetime.datetime | None:
    """When a section was written."""
    return moment(WRITTEN.search(read(root, title)))


def moment(found: re.Match[str] | None) -> datetime.datetime | None:
    """The time in a match's first group, None where there is none that can be read."""
    try:
        return datetime.datetime.strptime(found[1].strip(), STAMP) if found else None
    except ValueError:
        return None


def score_lines(scores: Mapping[str, str]) -> str:
    """Scores as a section shows them, and as the summary table finds them again."""
    return "\n".join(f"* {name}: {value}" for name, value in scores.items())


def scores(root: pathlib.Path, stage: str) -> dict[str, str]:
    """Name -> value as text, of what `score_lines` wrote into the stage's section."""
    return dict(SCORE.findall(read(root, SCORES_OF[stage])))


def now() -> str:
    """This moment, as sections tell it."""
    return datetime.datetime.now().strftime(STAMP)


def _show(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4f}" if abs(value) >= 1e-3 or value == 0 else f"{value:.3g}"
    if isinstance(value, int) and not isinstance(value, bool) and value >= 10000:
        return f"{value:,}"
    return str(value)
