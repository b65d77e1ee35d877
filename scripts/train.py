"""One stage of training: `python -m scripts.train --stage tokenizer|base|mid|sft|rl [flags]`."""

from nanochat_jax import devices, pipeline
from nanochat_jax.config.errors import friendly_errors
from nanochat_jax.hosts.watch import leaving
from nanochat_jax.stopping import at_once, run


def main(argv: list[str]) -> int:
    with leaving(), friendly_errors(), at_once():
        stage, rest = pipeline.split_stage(argv)
        config = pipeline.configure(stage, rest, prog=f"scripts.train --stage {stage}")
        pipeline.prepare_devices(config)
        pipeline.run(stage, config)
    return 0


if __name__ == "__main__":
    devices.begin_again()
    run(main)
