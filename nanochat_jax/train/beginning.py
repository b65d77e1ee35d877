"""What can refuse a run does so before anything on disk moves: its data, its step, its log.

A run of the same name may be finished and lie where this one will write.
"""

import itertools
import logging
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from nanochat_jax import sharding
from nanochat_jax.config.stages import RLTrain
from nanochat_jax.data import waiting
from nanochat_jax.stopping import Stop
from nanochat_jax.train import metrics
from nanochat_jax.train.curriculum import Upcoming
from nanochat_jax.train.setup import Run
from nanochat_jax.train.step import Batch, TrainState
from nanochat_jax.train.together import Together

log = logging.getLogger(__name__)


class Begun(NamedTuple):
    """What was tried and is used.

    Args:
        upcoming: the run's steps.
        shapes: of rows whose step is compiled.
        wandb: its run there; None: there is none.
    """

    upcoming: Iterator[Upcoming]
    shapes: set[tuple[int, ...]]
    wandb: Any


def begin(run: Run, state: TrainState, stop: Stop | Together) -> Begun:
    """Reads the first rows, compiles the step and signs on to wandb; writes nothing.

    Raises what any of these do, and Interrupted.
    """
    saved = run.start.resumed
    first, position = (saved.step, saved.loader) if saved else (0, None)
    upcoming = run.curriculum.rows(first, position)
    one = stop.run(lambda: next(upcoming), slow)
    shapes = set() if one.make is None else _compiled(run, state, one, stop)
    wandb = metrics.signed_on(run.stage, run.config)
    return Begun(itertools.chain([one], upcoming), shapes, wandb)


def slow(seconds: float) -> None:
    """Tells that the data are waited for."""
    log.warning("waiting for data for %.0f s: %s", seconds, waiting.told())


def _compiled(
    run: Run, state: TrainState, one: Upcoming, stop: Stop | Together
) -> set[tuple[int, ...]]:
    """Compiles the run's first step; the shapes for which that is done."""
    if isinstance(run.config, RLTrain):
        # How long the replies will be is not known before they are there, and to write them takes
        # longer than to compile: the step is traced, which finds what does not fit together.
        stop.run(lambda: run.trainer.step.lower(state, _longest(run)))
        return set()
    rows = one.make(lambda: None)  # a loader's, which ask for no model
    batch = run.trainer.place(rows)
    log.info("compiling the step ...")
    began = time.perf_counter()
    stop.run(lambda: run.trainer.step.lower(state, batch).compile(), _still_compiling)
    log.info("compiled in %.1f s", time.perf_counter() - began)
    return {batch.inputs_ART.shape}


def _still_compiling(seconds: float) -> None:
    log.info("still compiling after %.0f s; the next start finds it in the cache", seconds)


def _longest(run: Run) -> Batch:
    """Rollouts of the full length, as shapes."""
    config, mesh = run.config, run.trainer.mesh
    length = min(config.max_seq_len, run.trainer.gpt.cfg.sequence_len)
    per_pass = mesh.size * config.device_batch_size
    shape = (config.examples_per_step * config.num_samples // per_pass, per_pass, length)
    array = lambda dtype: jax.ShapeDtypeStruct(shape, dtype, sharding=sharding.batch_sharding(mesh))
    tokens = array(jnp.int32)
    return Batch(tokens, tokens, jnp.float32(0), array(jnp.float32))
