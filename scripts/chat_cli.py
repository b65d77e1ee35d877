"""Chat in the terminal: `python -m scripts.chat_cli [-i sft] [-p "one question"]`."""

import contextlib
import os
import sys

from nanochat_jax.config.errors import friendly_errors
from nanochat_jax.config.resolve import resolve
from nanochat_jax.config.serve import ChatCLI


def main(argv: list[str]) -> int:
    with friendly_errors():
        cfg = resolve("chat_cli", argv, prog="scripts.chat_cli")
        talk(cfg)
    return 0


def talk(cfg: ChatCLI) -> None:
    """One answer, or a conversation until the person leaves."""
    from nanochat_jax.serve.load import load, log_to_stderr

    log_to_stderr()
    loaded = load(cfg)
    from nanochat_jax.serve.engine import Engine
    from nanochat_jax.serve.terminal import Settings, Terminal

    interactive = sys.stdin.isatty() and sys.stdout.isatty() and not cfg.prompt
    settings = Settings(cfg.temperature, cfg.top_k, cfg.top_p, cfg.max_tokens, cfg.seed, cfg.system)
    engine = Engine(loaded.model, loaded.tokenizer, slots=1, int8=cfg.int8)
    sys.stdout.reconfigure(errors="replace")
    if interactive:  # imported elsewhere it writes escape sequences into pipes
        with contextlib.suppress(ImportError):
            import readline  # noqa: F401  (arrow keys and history in input())
    terminal = Terminal(engine, settings, input, sys.stdout, interactive)
    try:
        terminal.answer(cfg.prompt) if cfg.prompt else terminal.run()
    except BrokenPipeError:  # the reader of our output has left
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


if __name__ == "__main__":
    try:
        code = main(sys.argv[1:])
    except KeyboardInterrupt:  # Ctrl-C while the model loads
        code = 130
    sys.exit(code)
