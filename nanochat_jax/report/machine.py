"""What the report ran on, what an hour of that costs, how much code it is."""

import dataclasses
import datetime
import os
import pathlib
import platform
import subprocess
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version

import psutil

# Dollars an hour of one GPU. Source: nanochat `nanochat/report.py`, October 2025.
PRICES = (("H100", 3.00), ("A100", 1.79), ("V100", 0.55))
OTHER_GPU = 2.00
REPOSITORY = pathlib.Path(__file__).resolve().parents[2]
SOURCES = ("nanochat_jax", "scripts", "rustbpe/src")
ENDINGS = (".py", ".rs", ".html", ".js", ".css")
LIBRARIES = ("jax", "flax", "optax", "orbax-checkpoint", "grain", "numpy", "tokenizers")


@dataclasses.dataclass(frozen=True)
class Machine:
    """The machine and the moment a report began."""

    started: datetime.datetime
    facts: Mapping[str, Mapping[str, str]]  # title -> what is known under it
    dollars_per_hour: float | None = None  # None: unknown
    estimated: bool = True  # until somebody gives the real price

    def with_price(self, dollars_per_hour: float) -> "Machine":
        """The same machine at its real price; ValueError below zero."""
        if not dollars_per_hour >= 0:  # not a number, too
            raise ValueError(f"price is {dollars_per_hour}; give dollars per hour of the machine")
        return dataclasses.replace(self, dollars_per_hour=dollars_per_hour, estimated=False)

    def shown(self) -> dict[str, Mapping[str, str]]:
        """The facts, with the price among those of the hardware."""
        price = "unknown"
        if self.dollars_per_hour is not None:
            price = f"${self.dollars_per_hour:,.2f}/hour" + " (estimated)" * self.estimated
        return {**self.facts, "Hardware": {**self.facts.get("Hardware", {}), "Hourly rate": price}}


def in_a_line(machine: Machine) -> str:
    """When and on what: `2026-11-28 11:28, 2 cores, 2 logical, 23.5 GB, GPUs: none`."""
    hardware = machine.facts.get("Hardware", {})
    gpus = hardware.get("GPUs", "none")
    named = "no GPU" if gpus == "none" else gpus
    parts = [f"{machine.started:%Y-%m-%d %H:%M}", named, hardware.get("CPUs", "")]
    parts += [f"{hardware['Memory']} of memory"] if "Memory" in hardware else []
    commit = machine.facts.get("Git information", {}).get("Commit", "")
    return " · ".join(filter(None, [*parts, f"commit {commit}" if commit else ""]))


def look(started: datetime.datetime) -> Machine:
    """This machine, for a report that begins now."""
    gpus = [line.split(":", 1)[1].split("(UUID")[0].strip() for line in _lines("nvidia-smi", "-L")]
    names = ", ".join(f"{gpus.count(name)} x {name}" for name in dict.fromkeys(gpus))
    hardware = {
        "Platform": platform.platform(),
        "CPUs": f"{psutil.cpu_count(logical=False)} cores, {os.cpu_count()} logical",
        "Memory": f"{psutil.virtual_memory().total / 2**30:.1f} GB",
        "GPUs": names or "none",
    }
    software = {"Python": platform.python_version()} | {name: _version(name) for name in LIBRARIES}
    facts = {"Git information": _git(), "Hardware": hardware, "Software": software, "Code": _code()}
    return Machine(started, facts, hourly_rate(gpus) if gpus else None)


def hourly_rate(gpus: Sequence[str]) -> float:
    """What GPUs of these names cost together, in dollars an hour, as the original guesses it."""
    one = lambda name: next((dollars for word, dollars in PRICES if word in name), OTHER_GPU)
    return sum(map(one, gpus))


def _git() -> dict[str, str]:
    branch = _lines("git", "rev-parse", "--abbrev-ref", "HEAD")
    if not branch:
        return {"Commit": "unknown"}
    commit, *message = _lines("git", "log", "-1", "--format=%h%n%s")
    state = "dirty" if _lines("git", "status", "--porcelain") else "clean"
    facts = {"Branch": branch[0], "Commit": f"{commit} ({state})"}
    return facts | {"Message": " ".join(message)[:80]}


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "missing"


def _code() -> dict[str, str]:
    """How much there is to read, tests left out; a token is about four characters."""
    # The original reports its own size too: small enough to read is its promise, and ours.
    files = [p for f in SOURCES for p in (REPOSITORY / f).rglob("*") if p.suffix in ENDINGS]
    texts = [p.read_text(encoding="utf-8", errors="replace") for p in files]
    characters = sum(map(len, texts))
    return {
        "Characters": f"{characters:,}",
        "Lines": f"{sum(t.count(chr(10)) for t in texts):,}",
        "Files": str(len(files)),
        "Tokens (approx)": f"{characters // 4:,}",
    }


def _lines(*command: str) -> list[str]:
    """A command's output in the repository; nothing if it fails or takes over five seconds."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=5, cwd=REPOSITORY)
    except (OSError, subprocess.TimeoutExpired):
        return []
    return done.stdout.splitlines() if done.returncode == 0 else []
