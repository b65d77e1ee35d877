"""Scores of a checkpoint, into the report: `python -m scripts.eval -i sft [-a bpb,probes]`.

`python -m scripts.eval compare A B`: two evaluations of the same questions, beside each other.
"""

import dataclasses
import sys

import tyro

from nanochat_jax import pipeline
from nanochat_jax.config import flags
from nanochat_jax.config.errors import friendly_errors
from nanochat_jax.config.paths import base_dir
from nanochat_jax.hosts.watch import leaving
from nanochat_jax.stopping import at_once


@dataclasses.dataclass(frozen=True)
class Compare:
    """Two evaluations of the same questions: differences, their intervals, who got what right."""

    a: tyro.conf.Positional[str]  # folder of answers, or its name in the base directory's eval/
    b: tyro.conf.Positional[str]  # the other


def main(argv: list[str]) -> int:
    with leaving(), friendly_errors(), at_once():
        if argv[:1] == ["compare"]:
            asked = flags.command({"compare": Compare}, argv, prog="scripts.eval")
            from nanochat_jax.evals.compare import compare

            print(*compare(asked.a, asked.b, base_dir()), sep="\n")
            return 0
        config = pipeline.configure("eval", argv, prog="scripts.eval")
        pipeline.prepare_devices(config)
        pipeline.evaluate(config)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
