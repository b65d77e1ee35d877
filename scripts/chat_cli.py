"""Chat in the terminal: `python -m scripts.chat_cli [-i sft] [-p "one question"]`."""

import sys

from nanochat_jax.config.errors import friendly_errors
from nanochat_jax.config.resolve import resolve


def main(argv: list[str]) -> int:
    with friendly_errors():
        cfg = resolve("chat_cli", argv, prog="scripts.chat_cli")
        from nanochat_jax.serve import terminal

        terminal.chat(cfg)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
