"""The end of the report: every score of every stage in one table, and what it all took."""

import pathlib

from nanochat_jax.report import machine, sections

FIRST, LAST = ("CORE", "val bpb"), ("mean of probes", "ChatCORE metric", "ChatCORE")


def text(root: pathlib.Path, header: str) -> str:
    """The section `Summary`."""
    rows = ["## Summary", "", "| Metric | BASE | MID | SFT | RL |", "|---|---|---|---|---|"]
    for name, cells in table(root).items():
        values = (cells.get(stage, "-") for stage in sections.STAGES)
        rows.append(f"| {name} | {' | '.join(values)} |")
    rows += ["", f"Total wall clock time: {duration(wall_clock_s(root, header))}"]
    if (dollars := cost(root, header)) is not None:
        rows.append(f"Total cost: ${dollars:,.2f}, at ${machine.price(header):,.2f} an hour")
    return "\n".join([*rows, ""])


def table(root: pathlib.Path) -> dict[str, dict[str, str]]:
    """Metric -> stage -> value as text: CORE and bits per byte first, the means last."""
    found = {stage: sections.scores(root, stage) for stage in sections.STAGES}
    names = sorted({name for scores in found.values() for name in scores}, key=_rank)
    return {name: {s: v[name] for s, v in found.items() if name in v} for name in names}


def wall_clock_s(root: pathlib.Path, header: str) -> float | None:
    """Seconds from the header's start to the last section but RL's, as the original counts."""
    begun = sections.moment(machine.STARTED.search(header))
    titles = [title for title in sections.ORDER if " rl" not in title.lower()]
    ends = [end for title in titles if (end := sections.written(root, title))]
    if begun is None or not ends:
        return None
    return max(0.0, (max(ends) - begun).total_seconds())


def cost(root: pathlib.Path, header: str) -> float | None:
    """Dollars of the wall clock; None where time or price is unknown."""
    seconds, price = wall_clock_s(root, header), machine.price(header)
    return None if seconds is None or price is None else seconds / 3600 * price


def duration(seconds: float | None) -> str:
    """`1h02m` or `7m31s`; `unknown`."""
    if seconds is None:
        return "unknown"
    hours, minutes = int(seconds) // 3600, int(seconds) % 3600 // 60
    return f"{hours}h{minutes:02d}m" if hours else f"{minutes}m{int(seconds) % 60:02d}s"


def _rank(name: str) -> tuple[int, str]:
    stem = name.split(" (")[0]  # CORE (21 of 22 tasks)
    return (FIRST.index(stem) if stem in FIRST else 9 if stem in LAST else 5, name)
