"""What a training step takes on GPUs that need not be here, from XLA's program for them.

    python -m scripts.roofline --config configs/d20.toml --mesh 8 --device h100-80gb [--json]

`--stage` (base, mid, sft or rl) and every flag of that stage of `scripts.train` say which step. It
needs JAX's CUDA plugin, as in the environment of `make test-gpu`.
"""

import os
import sys

from nanochat_jax.config.errors import friendly_errors
from nanochat_jax.stopping import at_once


def main(argv: list[str]) -> int:
    if {"-h", "--help"} & set(argv):
        from nanochat_jax.aot.cards import names

        print(__doc__, f"--device: {', '.join(names())}", sep="\n")
        return 0
    # Whatever is here is not what is compiled for. JAX reads this when it is first imported.
    os.environ["JAX_PLATFORMS"] = "cpu"
    with friendly_errors(), at_once():
        from nanochat_jax.aot import command

        print(command.run(argv))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
