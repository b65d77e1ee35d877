"""Models to and from other programs: `scripts.convert import|export|compare|merge|push`."""

import os
import sys

from nanochat_jax.config import flags
from nanochat_jax.config.convert import COMMANDS
from nanochat_jax.config.errors import friendly_errors, start_logging
from nanochat_jax.stopping import at_once


def main(argv: list[str]) -> int:
    start_logging()
    with friendly_errors(), at_once():
        command = flags.command(COMMANDS, argv, prog="scripts.convert", description=__doc__)
        # Moving files needs no accelerator; JAX reads this once, when it is first imported.
        os.environ.setdefault("JAX_PLATFORMS", "cpu")
        from nanochat_jax import interop

        print(*interop.convert(command), sep="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
