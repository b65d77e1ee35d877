"""The optimizer: groups, state, clipping, and that devices share its work without a trace."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax.traverse_util import flatten_dict
from hypothesis import given, settings
from hypothesis import strategies as st

from nanochat_jax import sharding
from nanochat_jax.config.gpt import GPTConfig, recipe_model_defaults
from nanochat_jax.config.optim import DEFAULTS, OptimConfig
from nanochat_jax.models.gpt import init_params
from nanochat_jax.train import optimizer
from nanochat_jax.train.schedules import Hyper

SHAPE = dict(n_layer=2, n_embd=32, n_head=2, n_kv_head=2, vocab_size=64, sequence_len=16)
HYPER = Hyper(1.0, 0.9, 0.1)


def model_config(recipe: str) -> GPTConfig:
    return GPTConfig(**{**recipe_model_defaults(recipe), **SHAPE})


def setup(recipe: str, key, mesh=None, lr_scale=1.0, **changes):
    """An optimizer, parameters that are nowhere zero, and gradients."""
    cfg = model_config(recipe)
    shapes = jax.eval_shape(lambda: init_params(cfg, key))
    rng = np.random.default_rng(0)
    draw = lambda: jax.tree.map(lambda x: rng.normal(size=x.shape).astype(np.float32), shapes)
    defaults = {**DEFAULTS[recipe]["base"], "muon_dtype": "float32", "muon_steps": 2}
    optim = OptimConfig(**{**defaults, **changes})
    tx = optimizer.make_optimizer(cfg, optim, shapes, mesh=mesh, lr_scale=lr_scale)
    return tx, draw(), draw()


@pytest.mark.parametrize("recipe", ["classic", "current"])
def test_every_parameter_belongs_to_exactly_one_of_adamw_and_muon(recipe, key):
    tx, params, _ = setup(recipe, key)
    state = jax.eval_shape(tx.init, params)
    adam, matrices = flatten_dict(state["adam"]["exp_avg"]), flatten_dict(
        state["muon"]["momentum_buffer"]
    )  # fmt: skip
    flat = flatten_dict(params)
    assert adam.keys() | matrices.keys() == flat.keys() and not adam.keys() & matrices.keys()
    assert all(path[0].startswith("h_") for path in matrices)
    assert all(x.shape == flat[path].shape for path, x in (adam | matrices).items())


@pytest.mark.parametrize("recipe", ["classic", "current"])
def test_a_step_changes_every_parameter_and_keeps_all_shapes_and_types(recipe, key):
    tx, params, grads = setup(recipe, key)
    state = tx.init(params)
    updates, after = jax.jit(tx.update)(grads, state, params, hyper=HYPER)
    assert jax.tree.structure(after) == jax.tree.structure(state)
    assert jax.tree.map(jnp.shape, after) == jax.tree.map(jnp.shape, state)
    assert int(after["step"]) == 1
    for path, update in flatten_dict(updates).items():
        assert np.isfinite(update).all() and np.abs(update).max() > 0, path


def test_a_parameter_of_no_group_is_refused_by_name(key):
    params = {"adapter": {"kernel": jnp.zeros((2, 2))}}
    with pytest.raises(ValueError, match="adapter/kernel"):
        optimizer.make_optimizer(model_config("classic"), OptimConfig(), params)


def test_the_tables_take_the_steps_of_adamw(key):
    tx, params, grads = setup("classic", key, weight_decay=0.1, grad_clip=0.0, adam_eps=1e-8)
    width = (SHAPE["n_embd"] / 768) ** -0.5
    state, table = tx.init(params), params["wte"]["embedding"]
    reference = optax.adamw(0.2 * width, b1=0.8, b2=0.95, eps=1e-8, weight_decay=0.1)
    other, ours = reference.init(table), params
    update = jax.jit(tx.update)
    for scale in (1.0, -0.5, 2.0):
        g = jax.tree.map(lambda g, s=scale: s * g, grads)
        updates, state = update(g, state, ours, hyper=HYPER)
        want, other = reference.update(g["wte"]["embedding"], other, table)
        np.testing.assert_allclose(updates["wte"]["embedding"], want, rtol=1e-4, atol=1e-6)
        ours, table = optax.apply_updates(ours, updates), table + want


def test_a_table_stored_in_bfloat16_has_bfloat16_moments_and_stays_so(key):
    tx, params, grads = setup("current", key)
    params["wte"]["embedding"] = params["wte"]["embedding"].astype(jnp.bfloat16)
    state = tx.init(params)
    updates, state = jax.jit(tx.update)(grads, state, params, hyper=HYPER)
    assert state["adam"]["exp_avg"]["wte"]["embedding"].dtype == jnp.bfloat16
    assert optax.apply_updates(params, updates)["wte"]["embedding"].dtype == jnp.bfloat16


@pytest.mark.parametrize("recipe", ["classic", "current"])
def test_the_size_of_a_step_is_proportional_to_the_rate(recipe, key):
    tx, params, grads = setup(recipe, key)
    state, update = tx.init(params), jax.jit(tx.update)
    half = update(grads, state, params, hyper=HYPER._replace(lr_multiplier=0.5))[0]
    full = update(grads, state, params, hyper=HYPER)[0]
    jax.tree.map(lambda h, f: np.testing.assert_allclose(2 * h, f, rtol=1e-5), half, full)


def test_a_scale_on_all_rates_is_a_scale_on_the_step(key):
    one, params, grads = setup("classic", key)
    tenth, _, _ = setup("classic", key, lr_scale=0.1)
    full, small = (
        jax.jit(tx.update)(grads, tx.init(params), params, hyper=HYPER)[0] for tx in (one, tenth)
    )
    jax.tree.map(lambda s, f: np.testing.assert_allclose(10 * s, f, rtol=1e-4), small, full)


@settings(deadline=None, max_examples=25)
@given(limit=st.floats(1e-3, 1e3), size=st.floats(1e-3, 1e3))
def test_clipping_bounds_the_global_norm_and_never_scales_up(limit, size):
    grads = {"a": np.full(9, size, np.float32), "b": {"c": np.full(16, size, np.float32)}}
    got = optimizer.clip(grads, limit)
    before, after = optax.tree.norm(grads), optax.tree.norm(got)
    assert after <= min(limit, before) * (1 + 1e-5)
    assert after >= min(limit, before) * (1 - 1e-2) - 1e-6


def test_a_limit_of_zero_leaves_gradients_alone():
    grads = {"a": np.ones(3)}
    assert optimizer.clip(grads, 0.0) is grads


@pytest.mark.slow
def test_the_models_type_decides_muons_precision_only_where_asked(key):
    cfg = model_config("current")
    _, params, grads = setup("current", key)
    base = OptimConfig(**DEFAULTS["current"]["base"])

    def step(optim, dtype):
        tx = optimizer.make_optimizer(cfg, optim, params, compute_dtype=dtype)
        return jax.jit(tx.update)(grads, tx.init(params), params, hyper=HYPER)[0]["h_0"]

    wide, narrow = step(base, jnp.float32), step(base, jnp.bfloat16)
    fixed = step(dataclasses.replace(base, muon_dtype="float32"), jnp.bfloat16)
    jax.tree.map(np.testing.assert_array_equal, wide, fixed)
    differs = jax.tree.map(lambda a, b: not np.array_equal(a, b), wide, narrow)
    assert all(jax.tree.leaves(differs))


@pytest.mark.slow
@pytest.mark.parametrize("recipe", ["classic", "current"])
@pytest.mark.parametrize("text", ["3", "data=2,fsdp=2"])
def test_devices_share_the_work_and_the_step_is_the_same(recipe, text, key):
    tx, params, grads = setup(recipe, key)
    want = jax.jit(tx.update)(grads, tx.init(params), params, hyper=HYPER)
    mesh = sharding.make_mesh(text)
    tx, _, _ = setup(recipe, key, mesh=mesh)
    place = lambda tree: jax.device_put(tree, sharding.shardings(mesh, tree))
    got = jax.jit(tx.update)(place(grads), place(tx.init(params)), place(params), hyper=HYPER)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5), got, want)
