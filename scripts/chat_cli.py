"""Chat in the terminal: `python -m scripts.chat_cli [-i sft] [-p "one question"]`."""

import sys

from nanochat_jax.config.errors import friendly_errors
from nanochat_jax.config.resolve import resolve
from nanochat_jax.stopping import at_once


def main(argv: list[str]) -> int:
    with friendly_errors():
        cfg = resolve("chat_cli", argv, prog="scripts.chat_cli")
        from nanochat_jax.serve.startup import loading

        with loading(cfg, sys.stderr) as line:  # before JAX, whose import takes seconds
            with at_once():
                from nanochat_jax.serve import terminal

            return terminal.chat(cfg, line)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
