"""Training speed of the demo's step on a CPU: one device with XLA's threads, or one device a core.

`python bench/step.py [--rounds 3] [--steps 40]` runs the two in turn, each in a process of its own,
and prints tokens a second and their ratio round by round; the last line is one JSON object.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--devices", type=int, help="measure this many devices here, alone")
    args = parser.parse_args()
    if args.devices:
        print(measure(args.devices, args.steps))
        return
    from nanochat_jax.devices import virtual_devices

    cores = virtual_devices(rows=4, rows_per_device=1)
    rounds = [(child(1, args.steps), child(cores, args.steps)) for _ in range(args.rounds)]
    for one, many in rounds:
        print(
            f"1 device: {one:,.0f} tokens/s   {cores} devices: {many:,.0f}   ratio {many / one:.2f}"
        )
    ratio = statistics.median(many / one for one, many in rounds)
    print(json.dumps({"devices": cores, "rounds": rounds, "median_ratio": round(ratio, 3)}))


def child(devices: int, steps: int) -> float:
    """Tokens a second, measured in a fresh process."""
    command = [sys.executable, __file__, f"--devices={devices}", f"--steps={steps}"]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def measure(devices: int, steps: int) -> float:
    """Median tokens a second of the whole donated step at the demo's shape."""
    from nanochat_jax.devices import prepare

    prepare("cpu", virtual=devices)
    import jax
    import numpy as np

    from nanochat_jax import sharding
    from nanochat_jax.config.gpt import GPTConfig, shape_of_depth
    from nanochat_jax.config.stages import BaseTrain
    from nanochat_jax.models.gpt import init_params
    from nanochat_jax.train import setup
    from nanochat_jax.train.curriculum import StepRows

    rows, T, V = 4, 256, 1152  # `configs/cpu.toml`
    cfg = GPTConfig(sequence_len=T, vocab_size=V, **shape_of_depth(4, 32, 128))
    config = BaseTrain(
        device_batch_size=rows // devices, max_seq_len=T, total_batch_size=rows * T,
        num_iterations=1000,
    )  # fmt: skip
    trainer = setup.trainer(config, cfg, sharding.make_mesh(), steps=1000)
    state = trainer.fresh_state(init_params(cfg, jax.random.key(0)))
    ids = np.random.default_rng(0).integers(0, V, (1, rows, T + 1)).astype(np.int32)
    batch = trainer.place(StepRows(ids[:, :, :-1], ids[:, :, 1:], tokens=rows * T))
    times = []
    for _ in range(steps + 5):
        begun = time.perf_counter()
        state, metrics = trainer.step(state, batch)
        jax.block_until_ready(metrics)
        times.append(time.perf_counter() - begun)
    return rows * T / statistics.median(times[5:])


if __name__ == "__main__":
    main()
