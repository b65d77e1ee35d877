"""Text to train on: `python -m scripts.data COMMAND`.

download, add, list, verify, trace, identity, templates or clean.
"""

import sys

from nanochat_jax.config import flags
from nanochat_jax.config.data import COMMANDS, MakeIdentity, Trace, WriteTemplates
from nanochat_jax.config.errors import friendly_errors, start_logging
from nanochat_jax.stopping import at_once


def main(argv: list[str]) -> int:
    start_logging()
    with friendly_errors(), at_once():
        command = flags.command(COMMANDS, argv, prog="scripts.data", description=__doc__)
        if isinstance(command, MakeIdentity):
            from nanochat_jax.identity.make import run
        elif isinstance(command, WriteTemplates):
            from nanochat_jax.identity.make import write_templates as run
        elif isinstance(command, Trace):
            from nanochat_jax.train.trace import run
        else:
            from nanochat_jax.data.commands import run
        return run(command)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
