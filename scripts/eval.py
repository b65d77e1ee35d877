"""Scores of a checkpoint, into the report: `python -m scripts.eval -i sft [-a bpb,probes]`."""

import sys

from nanochat_jax import pipeline
from nanochat_jax.config.errors import friendly_errors
from nanochat_jax.hosts.watch import leaving
from nanochat_jax.stopping import at_once


def main(argv: list[str]) -> int:
    with leaving(), friendly_errors(), at_once():
        config = pipeline.configure("eval", argv, prog="scripts.eval")
        pipeline.prepare_devices(config)
        pipeline.evaluate(config)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
