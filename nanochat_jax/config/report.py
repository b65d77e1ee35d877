"""The flags of `scripts.report`."""

import dataclasses

import tyro


@dataclasses.dataclass(frozen=True)
class Report:
    """Generate the report (report.md, report.html), or reset it."""

    command: tyro.conf.Positional[str] = "generate"  # generate or reset
    price: float | None = None  # dollars an hour of this machine; kept for later reports
