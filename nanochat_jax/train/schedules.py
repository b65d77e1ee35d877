"""What changes with the step: learning rate multiplier, momentum, weight decay. Pure, in `jit`.

Computed on the device from the step counter: nothing is compiled anew, nothing sent from the host.
"""

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from nanochat_jax.config.optim import OptimConfig

Scalar = jax.Array | int | float


class Hyper(NamedTuple):
    """The optimizer's numbers of one step."""

    lr_multiplier: Scalar = 1.0
    momentum: Scalar = 0.95
    weight_decay: Scalar = 0.0


Schedule = Callable[[Scalar, Scalar], Hyper]


def make_schedule(optim: OptimConfig, num_iterations: int) -> Schedule:
    """`(step, progress) -> Hyper`, for a run of `num_iterations` optimizer steps.

    `progress` (0 to 1, the loader's) matters only where `lr_schedule` asks for it.
    """
    n = num_iterations
    return lambda step, progress=0.0: Hyper(
        lr_multiplier(optim, step, progress, n), momentum(optim, step, n),
        weight_decay(optim, step, n),
    )  # fmt: skip


def run_schedule(optim: OptimConfig, steps: int | None) -> Schedule:
    """The schedule of a run of so many steps, or (None) of one pass over its data.

    Rates by progress follow the share of the steps where these are counted: a loader's progress
    would hardly move in a run that is shorter than its data. A pass has no number of steps to go
    by, so rates by step follow the loader's progress there.
    """
    if steps is not None:
        counted = make_schedule(optim, steps)
        return lambda step, progress=0.0: counted(step, step / steps)
    if optim.lr_schedule == "linear":  # one straight fall, which a warmdown of the whole run is
        line = dict(warmup_ratio=0.0, warmdown_ratio=1.0, final_lr_frac=0.0)
        optim = dataclasses.replace(optim, **line)
    return make_schedule(dataclasses.replace(optim, lr_schedule="progress"), 1)


def lr_multiplier(
    optim: OptimConfig, step: Scalar, progress: Scalar, num_iterations: int
) -> Scalar:
    """The factor on every learning rate."""
    if optim.lr_schedule == "linear":
        return 1.0 - step / jnp.asarray(max(num_iterations, 1), float)
    if optim.lr_schedule == "progress":
        return _by_progress(optim, jnp.clip(jnp.asarray(progress, float), 0.0, 1.0))
    # A long fall at the end ("warmdown") lets the noise of large steps settle. 0.2 of the run to
    # 0.4 was the largest free win of the original's January 2026; 0.5 and 0.65 came later.
    warmup = optim.warmup_steps or round(optim.warmup_ratio * num_iterations)
    warmdown = round(optim.warmdown_ratio * num_iterations)
    rise = (step + 1) / jnp.asarray(max(warmup, 1), float)
    left = (num_iterations - step) / jnp.asarray(max(warmdown, 1), float)
    fall = left + (1.0 - left) * optim.final_lr_frac
    flat = jnp.where(step <= num_iterations - warmdown, 1.0, fall)
    return jnp.where(step < warmup, rise, flat)


def _by_progress(optim: OptimConfig, progress: jax.Array) -> jax.Array:
    warmup, plateau = optim.warmup_ratio, 1.0 - optim.warmdown_ratio
    rise = (progress + 1e-8) / max(warmup, 1e-8)
    fallen = (progress - plateau) / max(optim.warmdown_ratio, 1e-8)
    fall = (1.0 - fallen) + fallen * optim.final_lr_frac
    return jnp.where(progress < warmup, rise, jnp.where(progress <= plateau, 1.0, fall))


def momentum(optim: OptimConfig, step: Scalar, num_iterations: int) -> jax.Array:
    """Muon's momentum: a ramp, a plateau and, where asked for, a decline in the warmdown.

    The ramp wins over the decline, so a run shorter than both jumps, as the original's does.
    """
    # Early gradients change their direction fast: a short memory follows them, a long one does not.
    ramp = jnp.minimum(step / jnp.asarray(max(optim.momentum_steps, 1), float), 1.0)
    start = optim.momentum_start if optim.momentum_steps else optim.momentum
    rising = (1.0 - ramp) * start + ramp * optim.momentum
    warmdown = round(optim.warmdown_ratio * num_iterations)
    if optim.momentum_end < 0 or warmdown == 0:
        return rising
    gone = (step - (num_iterations - warmdown)) / jnp.asarray(warmdown, float)
    falling = optim.momentum * (1.0 - gone) + optim.momentum_end * gone
    # The original's order of cases, which a run shorter than ramp and warmdown shows as a jump.
    late = (step >= optim.momentum_steps) & (step >= num_iterations - warmdown)
    return jnp.where(late, falling, rising)


def weight_decay(optim: OptimConfig, step: Scalar, num_iterations: int) -> jax.Array:
    """Muon's weight decay; AdamW's never changes (its learning rate does)."""
    # Decay to 0 belongs to the falling rates: late in a run weights should settle, not shrink.
    start = optim.weight_decay if optim.weight_decay_on == "matrices" else 0.0
    if optim.weight_decay_schedule == "constant":
        return jnp.asarray(start, float)
    done = step / jnp.asarray(max(num_iterations, 1), float)
    return start * 0.5 * (1.0 + jnp.cos(jnp.pi * done))
