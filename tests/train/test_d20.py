"""The guide's run fits together: shapes, batch and a compiled step, without memory for weights."""

import pathlib
from functools import partial

import jax
import jax.numpy as jnp
import pytest

from nanochat_jax import pipeline, sharding
from nanochat_jax.config.gpt import param_counts
from nanochat_jax.models.gpt import GPT, init_params
from nanochat_jax.train import base, scaling, stage
from nanochat_jax.train.optimizer import make_optimizer
from nanochat_jax.train.schedules import make_schedule
from nanochat_jax.train.step import Batch, TrainState, train_step

CONFIG = pathlib.Path(__file__).resolve().parents[2] / "configs" / "d20.toml"


@pytest.fixture(scope="module")
def config():
    return pipeline.configure("base", [f"--config={CONFIG}"])


def test_shapes_horizon_and_batch_are_the_guides(config):
    cfg = base.model_config(config, 65536)
    shapes = jax.eval_shape(lambda: init_params(cfg, jax.random.key(0)))
    assert sum(a.size for a in jax.tree.leaves(shapes)) == 560_988_160
    assert param_counts(cfg)["total"] == 560_988_160
    plan = scaling.plan(cfg, config)
    assert (plan.num_iterations, plan.total_batch_size) == (21_400, 524_288)


def lowered_step(config, devices: int):
    """The whole step of d20 on a mesh, traced and lowered from shapes alone."""
    cfg = base.model_config(config, 65536)
    plan, mesh = scaling.plan(cfg, config), sharding.make_mesh(str(devices))
    gpt = GPT(cfg, dtype=jnp.bfloat16)
    shapes = jax.eval_shape(lambda: init_params(cfg, jax.random.key(0)))
    tx = make_optimizer(cfg, plan.optim, shapes, mesh=mesh, compute_dtype=gpt.dtype)
    state = jax.eval_shape(lambda p: TrainState.create(p, tx), shapes)
    place = sharding.shardings(mesh, state)
    typed = jax.tree.map(
        lambda a, s: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=s), state, place
    )
    micro = stage.micro_per_step(config, plan.total_batch_size, mesh)
    rows = devices * config.device_batch_size
    tokens = jax.ShapeDtypeStruct(
        (micro // devices, rows, config.max_seq_len), jnp.int32,
        sharding=sharding.batch_sharding(mesh),
    )  # fmt: skip
    schedule = make_schedule(plan.optim, plan.num_iterations)
    step = partial(train_step, gpt, tx, schedule, config.device_batch_size, mesh=mesh)
    jitted = jax.jit(step, donate_argnums=0, out_shardings=(place, None))
    return jitted.lower(typed, Batch(tokens, tokens, jnp.float32(0)))


@pytest.mark.slow
def test_the_step_compiles_on_a_mesh_and_shards_the_optimizer(config):
    compiled = lowered_step(config, 4).compile()
    memory = compiled.memory_analysis()
    weights = 4 * 560_988_160
    # Whole weights and a quarter of two moments (AdamW) or one (Muon) on each device, and tokens.
    assert memory.argument_size_in_bytes < 1.5 * weights
    assert memory.alias_size_in_bytes > weights
