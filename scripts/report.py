"""The report card again, from the sections on disk: `python -m scripts.report`."""

import dataclasses
import sys
from typing import Literal

import tyro

from nanochat_jax.config import flags
from nanochat_jax.config.errors import friendly_errors
from nanochat_jax.config.paths import base_dir
from nanochat_jax.stopping import at_once


@dataclasses.dataclass(frozen=True)
class Report:
    """Generate the report (report.md, report.html), or reset it."""

    command: tyro.conf.Positional[Literal["generate", "reset"]] = "generate"  # what to do
    price: float | None = None  # dollars an hour of this machine; kept for later reports


def main(argv: list[str]) -> int:
    with friendly_errors(), at_once():
        config = flags.whole(argv, Report, prog="scripts.report")
        from nanochat_jax import report

        if config.command == "reset":
            report.reset(base_dir())
            return 0
        path = report.generate(base_dir(), price=config.price)
        print(report.summary(base_dir()))
        print(f"\nthe whole report: {path}\nto look at:       {path.with_suffix('.html')}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
