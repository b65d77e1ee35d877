"""The head of the report: what it ran on, what an hour of that costs, how much code it is."""

import os
import pathlib
import platform
import re
import subprocess
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version

import psutil

from nanochat_jax.report import sections

# Dollars an hour of one GPU. Source: nanochat `nanochat/report.py`, October 2025.
PRICES = (("H100", 3.00), ("A100", 1.79), ("V100", 0.55))
OTHER_GPU = 2.00
RATE = re.compile(r"^- Hourly rate: .*$", re.MULTILINE)
DOLLARS = re.compile(r"^- Hourly rate: \$(\d[\d,]*(?:\.\d+)?)", re.MULTILINE)
STARTED = re.compile(r"^Run started: (.+)$", re.MULTILINE)
SOURCES = ("nanochat_jax", "scripts", "rustbpe/src")
ENDINGS = (".py", ".rs", ".html", ".js", ".css")
LIBRARIES = ("jax", "flax", "optax", "orbax-checkpoint", "grain", "numpy", "tokenizers")


def header() -> str:
    """The head of a report that begins now."""
    gpus = [line.split(":", 1)[1].split("(UUID")[0].strip() for line in _lines("nvidia-smi", "-L")]
    parts = {
        "Git information": _git(),
        "Hardware": _hardware(gpus),
        "Software": {"Python": platform.python_version()} | _versions(),
        "Code": _code(),
    }
    lines = ["# nanochat-jax report", "", f"Generated: {sections.now()}", "", "## Environment", ""]
    for title, facts in parts.items():
        lines += [f"### {title}", "", *(f"- {k}: {v}" for k, v in facts.items()), ""]
    return "\n".join([*lines, f"Run started: {sections.now()}", "", "---", ""])


def with_price(text: str, dollars_per_hour: float) -> str:
    """The head with the machine's real price.

    Raises:
        ValueError: a price below zero.
    """
    if not dollars_per_hour >= 0:
        raise ValueError(f"price is {dollars_per_hour}; give dollars per hour of the machine")
    line = f"- Hourly rate: ${dollars_per_hour:,.2f}/hour"
    return RATE.sub(line, text) if RATE.search(text) else text.rstrip() + f"\n\n{line}\n"


def price(text: str) -> float | None:
    """Dollars an hour in a head; None: unknown."""
    found = DOLLARS.search(text)
    return float(found[1].replace(",", "")) if found else None


def hourly_rate(gpus: Sequence[str]) -> float:
    """What GPUs of these names cost together, in dollars an hour, as the original guesses it."""
    one = lambda name: next((dollars for word, dollars in PRICES if word in name), OTHER_GPU)
    return sum(map(one, gpus))


def _hardware(gpus: Sequence[str]) -> dict[str, str]:
    rate = f"${hourly_rate(gpus):,.2f}/hour (estimated)" if gpus else "unknown"
    memory = psutil.virtual_memory().total / 2**30
    names = ", ".join(f"{gpus.count(name)} x {name}" for name in dict.fromkeys(gpus))
    return {
        "Platform": platform.platform(),
        "CPUs": f"{psutil.cpu_count(logical=False)} cores, {os.cpu_count()} logical",
        "Memory": f"{memory:.1f} GB",
        "GPUs": names or "none",
        "Hourly rate": rate,
    }


def _git() -> dict[str, str]:
    branch = _lines("git", "rev-parse", "--abbrev-ref", "HEAD")
    if not branch:
        return {"Commit": "unknown"}
    commit, *message = _lines("git", "log", "-1", "--format=%h%n%s")
    state = "dirty" if _lines("git", "status", "--porcelain") else "clean"
    told = {"Branch": branch[0], "Commit": f"{commit} ({state})"}
    return told | {"Message": " ".join(message)[:80]}


def _versions() -> dict[str, str]:
    found = {}
    for name in LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "missing"
    return found


def _code() -> dict[str, str]:
    """How much there is to read, tests left out; a token is about four characters."""
    here = _repository()
    files = [p for f in SOURCES for p in (here / f).rglob("*") if p.suffix in ENDINGS]
    texts = [p.read_text(encoding="utf-8", errors="replace") for p in files]
    characters = sum(map(len, texts))
    return {
        "Characters": f"{characters:,}",
        "Lines": f"{sum(t.count(chr(10)) for t in texts):,}",
        "Files": str(len(files)),
        "Tokens (approx)": f"{characters // 4:,}",
    }


def _repository() -> pathlib.Path:
    return pathlib.Path(__file__).resolve().parents[2]


def _lines(*command: str) -> list[str]:
    """What a command says in the repository; nothing if it fails or takes over five seconds."""
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=5, check=False, cwd=_repository()
        )
    except (OSError, subprocess.TimeoutExpired):
        return []
    return done.stdout.splitlines() if done.returncode == 0 else []
