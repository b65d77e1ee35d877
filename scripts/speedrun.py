"""Every stage in order, skipping what is done, then the report: `python -m scripts.speedrun`."""

from nanochat_jax import devices, speedrun
from nanochat_jax.config.errors import friendly_errors
from nanochat_jax.hosts.watch import leaving
from nanochat_jax.stopping import at_once, run


def main(argv: list[str]) -> int:
    with leaving(), friendly_errors(), at_once():
        speedrun.run(argv)
    return 0


if __name__ == "__main__":
    devices.begin_again()
    run(main)
