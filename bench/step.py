"""Training speed of the demo's step on a CPU: one device with XLA's threads, or one device a core.

`python bench/step.py [--rounds 3] [--steps 40]` runs the two in turn, each in a process of its own,
and prints tokens a second and their ratio round by round; the last line is one JSON object.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from functools import partial


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--devices", type=int, help="measure this many devices here, alone")
    args = parser.parse_args()
    if args.devices:
        print(measure(args.devices, args.steps))
        return
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
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
    from nanochat_jax.config.optim import OptimConfig, optim_defaults
    from nanochat_jax.models.gpt import GPT, init_params
    from nanochat_jax.train.optimizer import make_optimizer
    from nanochat_jax.train.schedules import make_schedule
    from nanochat_jax.train.step import Batch, TrainState, train_step

    rows, T, V = 8, 128, 1152
    cfg = GPTConfig(sequence_len=T, vocab_size=V, **shape_of_depth(4, 32, 128))
    optim, mesh = OptimConfig(**optim_defaults("classic", "base")), sharding.make_mesh()
    params = init_params(cfg, jax.random.key(0))
    tx = make_optimizer(cfg, optim, params, mesh=mesh)
    state = TrainState.create(params, tx)
    place = sharding.shardings(mesh, state)
    state = jax.device_put(state, place)
    ids = np.random.default_rng(0).integers(0, V, (1, rows, T + 1)).astype(np.int32)
    tokens = jax.device_put(ids, sharding.batch_sharding(mesh))
    batch = Batch(tokens[:, :, :-1], tokens[:, :, 1:])
    step = partial(train_step, GPT(cfg), tx, make_schedule(optim, 1000), rows // devices, mesh=mesh)
    step = jax.jit(step, donate_argnums=0, out_shardings=(place, None))
    times = []
    for _ in range(steps + 5):
        begun = time.perf_counter()
        state, metrics = step(state, batch)
        jax.block_until_ready(metrics)
        times.append(time.perf_counter() - begun)
    return rows * T / statistics.median(times[5:])


if __name__ == "__main__":
    main()
