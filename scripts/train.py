"""One stage of training: `python -m scripts.train --stage tokenizer|base|mid|sft|rl [flags]`."""

import sys

from nanochat_jax.config.load import friendly_errors


def main(argv: list[str]) -> int:
    from nanochat_jax import chain

    with friendly_errors():
        stage, rest = chain.split_stage(argv)
        config = chain.configure(stage, rest, prog=f"scripts.train --stage {stage}")
        chain.prepare_devices(config)
        chain.run(stage, config)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
