"""Runs on disk, old ones too: `python -m scripts.checkpoints list|restore|prune`."""

import sys

from nanochat_jax.config import flags
from nanochat_jax.config.checkpoints import COMMANDS
from nanochat_jax.config.errors import friendly_errors, start_logging
from nanochat_jax.stopping import at_once


def main(argv: list[str]) -> int:
    start_logging()
    with friendly_errors(), at_once():
        what = "Runs on disk, and those that were moved aside:"
        command = flags.command(COMMANDS, argv, prog="scripts.checkpoints", description=what)
        from nanochat_jax.checkpoint.commands import run

        return run(command)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
