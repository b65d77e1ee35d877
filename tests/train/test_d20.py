"""The guide's run fits together: shapes, batch and a compiled step, without memory for weights."""

import dataclasses
import pathlib

import jax
import pytest

from nanochat_jax import pipeline, sharding
from nanochat_jax.config import scaling
from nanochat_jax.config.gpt import param_counts
from nanochat_jax.models.gpt import init_params
from nanochat_jax.train import base, setup

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


@pytest.mark.slow
def test_the_step_compiles_on_a_mesh_and_shards_what_it_keeps(config):
    cfg = base.model_config(config, 65536)
    config = dataclasses.replace(config, dtype="bfloat16")  # as on the guide's GPUs
    step, state, batch = setup.abstract_run(config, cfg, sharding.make_mesh("4"))
    compiled = step.lower(state, batch).compile()
    memory = compiled.memory_analysis()
    weights = 4 * 560_988_160
    # A quarter of weights and of two moments (AdamW) or one (Muon) on each device, and tokens.
    kept = (weights + 4 * (2 * 167_772_160 + 393_216_000)) / 4
    assert kept < memory.argument_size_in_bytes < 1.01 * kept
    assert memory.alias_size_in_bytes > kept
