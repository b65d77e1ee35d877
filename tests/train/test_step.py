"""The training step: what its loss is, and that accumulation and devices do not change it."""

import functools
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nanochat_jax import sharding
from nanochat_jax.config.gpt import GPTConfig
from nanochat_jax.config.optim import DEFAULTS, OptimConfig
from nanochat_jax.models.gpt import GPT, init_params
from nanochat_jax.train.optimizer import make_optimizer
from nanochat_jax.train.schedules import make_schedule
from nanochat_jax.train.step import Batch, TrainState, gradients, mean_weights, train_step

CFG = GPTConfig(n_layer=1, n_embd=32, n_head=2, n_kv_head=2, vocab_size=64, sequence_len=8)
OPTIM = OptimConfig(**{**DEFAULTS["classic"]["base"], "muon_dtype": "float32", "muon_steps": 2})
MODEL = GPT(CFG)
T = 8


def params_of(key) -> dict:
    """Parameters that are nowhere zero, as the initial ones are."""
    leaves, structure = jax.tree.flatten(jax.eval_shape(lambda: init_params(CFG, key)))
    keys = jax.random.split(key, len(leaves))
    draw = lambda k, x: 0.3 * jax.random.normal(k, x.shape)
    return jax.tree.unflatten(structure, map(draw, keys, leaves))


def batch_of(A: int, R: int, ignored: float = 0.4) -> Batch:
    """The same 8 rows for every A x R = 8, with some targets ignored."""
    rng = np.random.default_rng(0)
    ids = rng.integers(0, CFG.vocab_size, (A * R, T + 1)).astype(np.int32)
    targets = np.where(rng.random((A * R, T)) < ignored, -1, ids[:, 1:]).astype(np.int32)
    return Batch(ids[:, :-1].reshape(A, R, T), targets.reshape(A, R, T), np.float32(0.5))


def runner(params, rows, mesh=None, model=MODEL, **exchanged):
    """A compiled step and its first state, placed on the mesh."""
    tx = make_optimizer(CFG, OPTIM, params, mesh=mesh)
    state = TrainState.create(params, tx)
    step = partial(train_step, model, tx, make_schedule(OPTIM, 100), rows, mesh=mesh, **exchanged)
    if mesh is None:
        return jax.jit(step), state
    places = sharding.shardings(mesh, state)
    return jax.jit(step, out_shardings=(places, None)), jax.device_put(state, places)


def steps(params, batch, rows, mesh=None, n=3, **kwargs):
    """Loss of each of `n` steps on one batch, gradient norms, and the last parameters."""
    step, state = runner(params, rows, mesh, **kwargs)
    if mesh is not None:
        place = lambda x: jax.device_put(x, sharding.batch_sharding(mesh))
        batch = Batch(place(batch.inputs_ART), place(batch.targets_ART), batch.progress)
    history = []
    for _ in range(n):
        state, metrics = step(state, batch)
        history.append((float(metrics["train/loss"]), float(metrics["train/grad_norm"])))
    return np.array(history), jax.device_get(state.params)


@functools.cache
def on_one_device(A: int, R: int, rows: int):
    return steps(params_of(jax.random.key(0)), batch_of(A, R), rows)


compiled_gradients = jax.jit(partial(gradients, MODEL))
forward = jax.jit(lambda params, ids: MODEL.apply({"params": params}, ids)[0])


def log_p(params, ids_RT):
    """Log probabilities [R, T, V], float64."""
    logits = np.asarray(forward(params, ids_RT), np.float64)
    return logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))


def same(got, want, atol=2e-4):
    np.testing.assert_allclose(got[0], want[0], rtol=1e-4)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=atol), got[1], want[1])


def test_the_loss_is_the_mean_over_micro_batches_of_their_means(key):
    params, batch = params_of(key), batch_of(2, 4)
    weights = mean_weights(batch.targets_ART, 2)
    loss, _ = compiled_gradients(params, batch.inputs_ART, batch.targets_ART, weights)
    targets = batch.targets_ART.reshape(8, T)
    picked = np.maximum(targets, 0)[..., None]
    nll = -np.take_along_axis(log_p(params, batch.inputs_ART.reshape(8, T)), picked, -1)[..., 0]
    means = [nll[i : i + 2][targets[i : i + 2] >= 0].mean() for i in range(0, 8, 2)]
    np.testing.assert_allclose(loss, np.mean(means), rtol=1e-5)


def test_a_micro_batch_without_targets_counts_zero_and_is_never_nan(key):
    params, batch = params_of(key), batch_of(2, 4)
    batch.targets_ART[0, :2] = -1
    batch.targets_ART[1] = -1
    weights = mean_weights(batch.targets_ART, 2)
    np.testing.assert_allclose(weights.sum(axis=(1, 2)), [0.25, 0.0], rtol=1e-6)
    loss, grads = compiled_gradients(params, batch.inputs_ART, batch.targets_ART, weights)
    assert all(np.isfinite(x).all() for x in jax.tree.leaves((loss, grads)))
    nothing = np.full_like(batch.targets_ART, -1)
    history, after = steps(params, batch.replace(targets_ART=nothing), 2, n=1)
    assert history.tolist() == [[0.0, 0.0]]
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(after))


def test_the_gradient_is_that_of_plain_autodiff(key):
    params, batch = params_of(key), batch_of(2, 4)
    weights = mean_weights(batch.targets_ART, 4)

    def loss(params):
        logits, _ = MODEL.apply({"params": params}, batch.inputs_ART.reshape(8, T))
        safe = np.maximum(batch.targets_ART.reshape(8, T), 0)[..., None]
        nll = -jnp.take_along_axis(jax.nn.log_softmax(logits), safe, axis=-1)[..., 0]
        return jnp.sum(nll * weights.reshape(8, T))

    want = jax.jit(jax.grad(loss))(params)
    got = compiled_gradients(params, batch.inputs_ART, batch.targets_ART, weights)[1]
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), got, want)


@pytest.mark.slow
@pytest.mark.parametrize("shape", [(1, 8), (8, 1)])
def test_how_rows_are_accumulated_does_not_change_the_step(key, shape):
    params = params_of(key)
    one = Batch(
        *(x.reshape(4, 2, T) for x in (batch_of(4, 2).inputs_ART, batch_of(4, 2).targets_ART))
    )
    rows = 1
    want = steps(params, one, rows)
    same(steps(params, batch_of(*shape), rows), want)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("text", "shape"),
    [("2", (1, 8)), ("4", (2, 4)), ("data=2,fsdp=2", (1, 8)), ("data=1,fsdp=4", (2, 4))],
)
def test_devices_share_the_rows_and_the_run_is_the_same(key, text, shape):
    got = steps(params_of(key), batch_of(*shape), 2, sharding.make_mesh(text))
    same(got, on_one_device(1, 8, 2))


@pytest.mark.slow
def test_a_step_keeps_the_state_where_the_table_puts_it(key):
    mesh = sharding.make_mesh("data=2,fsdp=2")
    step, state = runner(params_of(key), 2, mesh)
    where = jax.tree.map(lambda x: x.sharding.spec, state)
    after, _ = step(state, batch_of(1, 8))
    assert jax.tree.map(lambda x: x.sharding.spec, after) == where


def test_weights_of_the_callers_own_replace_the_mean(key):
    params, batch = params_of(key), batch_of(1, 8, ignored=0.0)
    weights = np.zeros((1, 8, T), np.float32)
    weights[0, 3, 5] = -2.0
    step, state = runner(params, 2)
    _, metrics = step(state, batch.replace(weights_ART=weights))
    want = 2.0 * log_p(params, batch.inputs_ART[0])[3, 5, batch.targets_ART[0, 3, 5]]
    np.testing.assert_allclose(metrics["train/loss"], want, rtol=1e-4)


@pytest.mark.slow
def test_bfloat16_compute_keeps_float32_weights_and_a_near_loss(key):
    params = params_of(key)
    narrow = steps(params, batch_of(1, 8), 2, model=GPT(CFG, dtype=jnp.bfloat16), n=1)
    wide = on_one_device(1, 8, 2)
    assert {x.dtype for x in jax.tree.leaves(narrow[1])} == {np.dtype(np.float32)}
    np.testing.assert_allclose(narrow[0][0, 0], wide[0][0, 0], rtol=2e-2)


def test_steps_are_counted_and_compile_once(key):
    step, state = runner(params_of(key), 2)
    for count in (1, 2, 3):
        state, metrics = step(state, batch_of(1, 8))
        assert int(state.step) == int(state.opt_state["step"]) == count
    assert step._cache_size() == 1
    assert set(metrics) >= {"train/loss", "train/grad_norm", "train/lr_multiplier"}


def test_training_on_one_batch_learns_it(key):
    params = jax.jit(lambda: init_params(CFG, key))()
    history, _ = steps(params, batch_of(1, 8, ignored=0.0), 2, n=30)
    assert history[0, 0] == pytest.approx(np.log(CFG.vocab_size), rel=1e-4)
    assert history[-1, 0] < 0.5 * history[0, 0]
