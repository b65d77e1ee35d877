"""Scores of a checkpoint, into the report: `python -m scripts.eval -i sft [-a bpb,probes]`.

`python -m scripts.eval compare A B`: two evaluations of the same questions, beside each other.
`python -m scripts.eval contamination -i sft`: which questions are in what it was trained on.
"""

import sys

from nanochat_jax import pipeline
from nanochat_jax.config import flags
from nanochat_jax.config.errors import friendly_errors
from nanochat_jax.config.evals import COMMANDS, Compare
from nanochat_jax.config.paths import base_dir
from nanochat_jax.hosts.watch import leaving
from nanochat_jax.stopping import at_once


def main(argv: list[str]) -> int:
    with leaving(), friendly_errors(), at_once():
        if argv[:1] and argv[0] in COMMANDS:
            command = flags.command(COMMANDS, argv, prog="scripts.eval")
            if isinstance(command, Compare):
                from nanochat_jax.evals.compare import compare

                print(*compare(command.a, command.b, base_dir()), sep="\n")
            else:
                print(pipeline.contamination(command))
            return 0
        config = pipeline.configure("eval", argv, prog="scripts.eval")
        pipeline.prepare_devices(config)
        pipeline.evaluate(config)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
