"""The report card again, from the sections on disk: `python -m scripts.report`."""

import sys

import tyro

from nanochat_jax.config.errors import friendly_errors
from nanochat_jax.config.paths import base_dir
from nanochat_jax.config.report import Report


def main(argv: list[str]) -> int:
    with friendly_errors():
        command = tyro.cli(Report, args=argv, prog="scripts.report")
        if command.command not in ("generate", "reset"):
            raise ValueError(f"command is {command.command!r}; expected generate or reset")
        from nanochat_jax import report

        if command.command == "reset":
            report.reset(base_dir())
            return 0
        path = report.generate(base_dir(), price=command.price)
        print(report.summary(base_dir()))
        print(f"\nthe whole report: {path}\nto look at:       {path.with_suffix('.html')}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
