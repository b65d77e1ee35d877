"""The report card again, from the sections on disk: `python -m scripts.report`."""

import sys

from nanochat_jax.config.load import friendly_errors


def main(argv: list[str]) -> int:
    import tyro

    from nanochat_jax import report
    from nanochat_jax.config.stages import base_dir

    @tyro.conf.configure(tyro.conf.PositionalRequiredArgs)
    def program(command: str = "generate") -> None:
        """generate the report, or reset it."""
        if command not in ("generate", "reset"):
            raise ValueError(f"command is {command!r}; expected generate or reset")
        if command == "reset":
            report.reset(base_dir())
        else:
            print(report.summary(report.generate(base_dir())))

    with friendly_errors():
        tyro.cli(program, args=argv, prog="scripts.report")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
