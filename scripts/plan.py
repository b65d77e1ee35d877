"""A config for the machine at hand: `python -m scripts.plan --hours 2 --file plan.toml`."""

import dataclasses
import pathlib
import sys

from nanochat_jax import devices, plan
from nanochat_jax.config import flags
from nanochat_jax.config.errors import friendly_errors
from nanochat_jax.config.resolve import CONFIGS
from nanochat_jax.files import write_text
from nanochat_jax.stopping import at_once

ON_A_CPU = CONFIGS / "cpu-portable.toml"


@dataclasses.dataclass(frozen=True)
class WritePlan:
    """Write a config for the GPUs or the TPU at hand (on a CPU the demo's); one that is there
    stays."""

    hours: float = 2.0  # of training, an estimate
    file: str = "plan.toml"  # where the config goes

    def __post_init__(self) -> None:
        plan.check_hours(self.hours)


def main(argv: list[str]) -> int:
    with friendly_errors(), at_once():
        config = flags.whole(argv, WritePlan, prog="scripts.plan")
        path = pathlib.Path(config.file)
        # A run that goes on, perhaps on another kind of device, is the one that it was.
        if path.exists():
            print(f"{path} is there already and stays; now: python -m scripts.speedrun --config "
                  f"{path}, or another --file for a new plan")  # fmt: skip
        else:
            text, said = planned(config.hours)
            write_text(path, text)
            print(f"{said}\nwritten to {path}; now: python -m scripts.speedrun --config {path}")
    return 0


def planned(hours: float) -> tuple[str, str]:
    """(the config, what it is) for the devices that JAX finds here."""
    if devices.machine_kind() == "cpu":
        return ON_A_CPU.read_text(encoding="utf-8"), "no GPU or TPU here: the demo, in minutes"
    devices.prepare()
    import jax

    first = jax.local_devices()[0]
    memory = (first.memory_stats() or {}).get("bytes_limit", 0)
    machine = plan.Machine(first.device_kind, jax.device_count(), memory)
    made = plan.plan(machine, hours)
    said = f"{hours:g} hours of {machine.devices} x {machine.name}, an estimate: "
    return plan.toml(machine, hours, made), said + plan.summary(made)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
