"""The report card: one section a stage, a summary table, and what it all took.

Sections lie as markdown files in `report/`; `generate` joins them in order.
Source: nanochat `nanochat/report.py` (the layout).
"""

import datetime
import os
import pathlib
import platform
import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from typing import Any

import psutil

ORDER = (
    "Data", "Tokenizer training", "Tokenizer evaluation",
    "Base model training", "Base model evaluation",
    "Midtraining", "Chat evaluation mid", "Chat SFT", "Chat evaluation sft",
    "Chat RL", "Chat evaluation rl",
)  # fmt: skip
STAGES = ("base", "mid", "sft", "rl")
SECTION_OF = {
    "base": "Base model evaluation", "mid": "Chat evaluation mid", "sft": "Chat evaluation sft",
    "rl": "Chat evaluation rl",
}  # fmt: skip
STAMP = "%Y-%m-%d %H:%M:%S"


def reset(root: pathlib.Path) -> None:
    """Begins a new report: the old sections go, the header tells of this machine and moment."""
    folder = root / "report"
    folder.mkdir(parents=True, exist_ok=True)
    for title in ORDER:
        _file(root, title).unlink(missing_ok=True)
    (folder / "header.md").write_text(_header(root))


def log(root: pathlib.Path, title: str, items: Sequence[str | Mapping[str, Any]]) -> None:
    """Writes (or rewrites) a section: texts as they are, dicts as a list of `- key: value`."""
    lines = [f"## {title}", f"timestamp: {_now()}", ""]
    for item in items:
        lines += (
            [item] if isinstance(item, str) else [f"- {k}: {_show(v)}" for k, v in item.items()]
        )
        lines.append("")
    path = _file(root, title)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines))


def has(root: pathlib.Path, title: str) -> bool:
    """Whether a section was written since the last reset."""
    return _file(root, title).exists()


def generate(root: pathlib.Path, copy_to: pathlib.Path | None = None) -> pathlib.Path:
    """Joins the sections into `report/report.md` and copies it to `copy_to` (default: here).

    Returns the path of the report.
    """
    header = root / "report" / "header.md"
    parts = [header.read_text() if header.exists() else _header(root)]
    parts += [_file(root, t).read_text() for t in ORDER if has(root, t)]
    parts.append(_summary(root, parts[0]))
    path = root / "report" / "report.md"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(parts))
    shutil.copy(path, (copy_to or pathlib.Path.cwd()) / "report.md")
    return path


def summary(path: pathlib.Path) -> str:
    """The last section of a report on disk."""
    return path.read_text().split("## Summary\n", 1)[-1].strip()


def _summary(root: pathlib.Path, header: str) -> str:
    scores = {stage: _scores(root, SECTION_OF[stage]) for stage in STAGES}
    names = sorted({name for found in scores.values() for name in found}, key=_rank)
    rows = ["## Summary", "", "| Metric | BASE | MID | SFT | RL |", "|---|---|---|---|---|"]
    for name in names:
        cells = (scores[stage].get(name, "-") for stage in STAGES)
        rows.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join([*rows, "", f"Total wall clock time: {_wall_clock(root, header)}", ""])


def _rank(name: str) -> tuple[int, str]:
    first, last = ("CORE", "val bpb"), ("mean of probes", "ChatCORE metric")
    stem = name.split(" (")[0]  # CORE (21 of 22 tasks)
    return (first.index(stem) if stem in first else 9 if name in last else 5, name)


def _scores(root: pathlib.Path, title: str) -> dict[str, str]:
    """The lines `- name: number [(n)]` of a section's `Scores` list."""
    path = _file(root, title)
    text = path.read_text() if path.exists() else ""
    found = re.findall(r"^\* (.+?): (-?\d[\d.]*%?(?: \(.*\))?)$", text, re.MULTILINE)
    return dict(found)


def score_lines(scores: Mapping[str, str]) -> str:
    """Scores as a section shows them, and as the summary table finds them again."""
    return "\n".join(f"* {name}: {value}" for name, value in scores.items())


def _wall_clock(root: pathlib.Path, header: str) -> str:
    """From the header's start to the last section but RL's, as `1h02m` or `7m31s`."""
    begun = re.search(r"^Run started: (.+)$", header, re.MULTILINE)
    ends = [
        datetime.datetime.strptime(m[1], STAMP)
        for t in ORDER
        if has(root, t) and " rl" not in t.lower()
        and (m := re.search(r"^timestamp: (.+)$", _file(root, t).read_text(), re.MULTILINE))
    ]  # fmt: skip
    if not begun or not ends:
        return "unknown"
    seconds = int((max(ends) - datetime.datetime.strptime(begun[1], STAMP)).total_seconds())
    hours, minutes = seconds // 3600, seconds % 3600 // 60
    return f"{hours}h{minutes:02d}m" if hours else f"{minutes}m{seconds % 60:02d}s"


def _header(root: pathlib.Path) -> str:
    files = [p for p in _sources() if p.is_file()]
    texts = [p.read_text(encoding="utf-8", errors="replace") for p in files]
    memory = psutil.virtual_memory().total / 2**30
    facts = {
        "Platform": platform.platform(),
        "CPUs": f"{psutil.cpu_count(logical=False)} cores, {os.cpu_count()} logical",
        "Memory": f"{memory:.1f} GB",
        "GPUs": _first_line("nvidia-smi", "-L") or "none",
        "Python": platform.python_version(),
        "Commit": _first_line("git", "log", "-1", "--format=%h %s") or "unknown",
        "Code": f"{sum(map(len, texts)):,} characters, {sum(t.count(chr(10)) for t in texts):,} "
        f"lines, {len(files)} files",
    }
    lines = ["# nanochat-jax report", "", f"Generated: {_now()}", "", "## Environment", ""]
    lines += [f"- {k}: {v}" for k, v in facts.items()]
    return "\n".join([*lines, "", f"Run started: {_now()}", "", "---", ""])


def _sources() -> list[pathlib.Path]:
    here = pathlib.Path(__file__).resolve().parents[1]
    folders = ("nanochat_jax", "scripts", "rustbpe/src")
    endings = (".py", ".rs", ".html", ".js", ".css")
    return [p for f in folders for p in (here / f).rglob("*") if p.suffix in endings]


def _first_line(*command: str) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=5, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.splitlines()[0] if done.returncode == 0 and done.stdout else ""


def _file(root: pathlib.Path, title: str) -> pathlib.Path:
    return root / "report" / f"{title.lower().replace(' ', '-')}.md"


def _show(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4f}" if abs(value) >= 1e-3 or value == 0 else f"{value:.3g}"
    if isinstance(value, int) and not isinstance(value, bool) and value >= 10000:
        return f"{value:,}"
    return str(value)


def _now() -> str:
    return datetime.datetime.now().strftime(STAMP)
