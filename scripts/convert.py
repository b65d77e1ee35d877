"""Models to and from other programs: `python -m scripts.convert import|export|compare`."""

import logging
import os
import sys

import tyro

from nanochat_jax.config.convert import Compare, Export, Import
from nanochat_jax.config.errors import friendly_errors
from nanochat_jax.config.flags import check

COMMANDS = {"import": Import, "export": Export, "compare": Compare}


def main(argv: list[str]) -> int:
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    for noisy in ("absl", "orbax", "jax"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    with friendly_errors():
        if argv and argv[0] in COMMANDS:
            check(argv[1:], COMMANDS[argv[0]])
        command = tyro.extras.subcommand_cli_from_dict(
            COMMANDS, prog="scripts.convert", description=__doc__, args=argv
        )
        # Moving files needs no accelerator; JAX reads this once, when it is first imported.
        os.environ.setdefault("JAX_PLATFORMS", "cpu")
        from nanochat_jax import interop

        print(*interop.convert(command), sep="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
