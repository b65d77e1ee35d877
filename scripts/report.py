"""The report card again, from the sections on disk: `python -m scripts.report`."""

import sys

from nanochat_jax.config.errors import friendly_errors


def main(argv: list[str]) -> int:
    import tyro

    from nanochat_jax import report
    from nanochat_jax.config.paths import base_dir

    def program(
        command: tyro.conf.Positional[str] = "generate", price: float | None = None
    ) -> None:
        """Generate the report (report.md, report.html), or reset it.

        Args:
            command: generate or reset
            price: dollars an hour of this machine; kept for later reports
        """
        if command not in ("generate", "reset"):
            raise ValueError(f"command is {command!r}; expected generate or reset")
        if command == "reset":
            report.reset(base_dir())
            return
        path = report.generate(base_dir(), price=price)
        print(report.summary(path))
        print(f"\nthe whole report: {path}\nto look at:       {path.with_suffix('.html')}")

    with friendly_errors():
        tyro.cli(program, args=argv, prog="scripts.report")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
