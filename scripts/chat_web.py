"""The chat page and the OpenAI-compatible API: `python -m scripts.chat_web [-i sft] [-p 8000]`."""

import sys

from nanochat_jax.config.errors import friendly_errors, start_logging
from nanochat_jax.config.resolve import resolve


def main(argv: list[str]) -> int:
    with friendly_errors():
        cfg = resolve("chat_web", argv, prog="scripts.chat_web")
        from nanochat_jax.serve.server import launch

        start_logging()
        return launch.serve(cfg)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
