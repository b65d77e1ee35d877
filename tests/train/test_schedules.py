"""Schedules: what they are at the ends of a run, and between."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nanochat_jax.config.optim import DEFAULTS, OptimConfig
from nanochat_jax.train.schedules import make_schedule


def config(recipe: str, stage: str, **changes) -> OptimConfig:
    return OptimConfig(**{**DEFAULTS[recipe][stage], **changes})


def over(optim: OptimConfig, n: int) -> np.ndarray:
    """Rows (lr multiplier, momentum, weight decay) for steps 0..n."""
    schedule = make_schedule(optim, n)
    values = jax.jit(lambda s: schedule(s, s / n))(jnp.arange(n + 1))
    return np.stack([np.broadcast_to(v, n + 1) for v in values], axis=1)


@pytest.mark.parametrize("recipe", ["classic", "current"])
@pytest.mark.parametrize("stage", ["base", "mid", "sft", "rl"])
def test_rates_stay_between_zero_and_one_and_momentum_below_one(recipe, stage):
    values = over(config(recipe, stage), 200)
    assert np.isfinite(values).all()
    assert (values[:, 0] >= -1e-6).all() and (values[:, 0] <= 1).all()
    assert (values[:, 1] >= 0.8).all() and (values[:, 1] < 1).all()


def test_classic_base_falls_linearly_to_zero_over_the_last_fifth():
    lr = over(config("classic", "base"), 100)[:, 0]
    np.testing.assert_allclose(lr[:81], 1.0)
    np.testing.assert_allclose(lr[80:], np.linspace(1, 0, 21), atol=1e-6)


def test_current_base_warms_up_by_steps_and_decays_to_a_twentieth():
    lr = over(config("current", "base"), 1000)[:, 0]
    np.testing.assert_allclose(lr[:40], np.arange(1, 41) / 40, rtol=1e-6)
    np.testing.assert_allclose(lr[40:351], 1.0)
    np.testing.assert_allclose(lr[-1], 0.05, rtol=1e-6)


def test_momentum_ramps_holds_and_falls_in_the_warmdown():
    momentum = over(config("current", "base"), 2000)[:, 1]
    np.testing.assert_allclose(momentum[[0, 200, 400, 700]], [0.85, 0.91, 0.97, 0.97], rtol=1e-6)
    np.testing.assert_allclose(momentum[[1350, 2000]], [0.935, 0.90], rtol=1e-6)


def test_weight_decay_of_matrices_follows_a_half_cosine():
    decay = over(config("current", "base", weight_decay=0.4), 100)[:, 2]
    np.testing.assert_allclose(decay[[0, 50, 100]], [0.4, 0.2, 0.0], atol=1e-7)


def test_weight_decay_meant_for_the_embeddings_leaves_the_matrices_alone():
    assert not over(config("classic", "base", weight_decay=0.1), 10)[:, 2].any()


def test_finetuning_falls_in_one_line_with_constant_momentum():
    values = over(config("classic", "sft"), 50)
    np.testing.assert_allclose(values[:, 0], np.linspace(1, 0, 51), atol=1e-6)
    np.testing.assert_allclose(values[:, 1], 0.95, rtol=1e-6)


def test_a_progress_schedule_ignores_the_step_and_a_step_schedule_the_progress():
    mid, base = config("classic", "mid"), config("classic", "base")
    by_progress = [make_schedule(mid, 10)(s, 0.9).lr_multiplier for s in (0, 5, 10)]
    np.testing.assert_allclose(by_progress, 0.5, rtol=1e-5)
    by_step = [make_schedule(base, 10)(9, p).lr_multiplier for p in (0.0, 1.0)]
    np.testing.assert_allclose(by_step, 0.5, rtol=1e-5)


@settings(deadline=None, max_examples=30)
@given(
    n=st.integers(1, 300),
    warmup=st.floats(0, 1),
    warmdown=st.floats(0, 1),
    steps=st.integers(0, 400),
)
def test_any_base_schedule_is_finite_whatever_the_ratios(n, warmup, warmdown, steps):
    optim = config(
        "current", "base", warmup_ratio=warmup, warmdown_ratio=warmdown, warmup_steps=steps
    )
    hyper = make_schedule(optim, n)(np.array([0, n // 2, n]), 0.0)
    assert all(np.isfinite(np.asarray(value)).all() for value in hyper)


def test_a_schedule_compiles_once_for_all_steps():
    traces = []

    @jax.jit
    def multiplier(step):
        traces.append(step)
        return make_schedule(config("current", "base"), 100)(step, 0.0).lr_multiplier

    assert [float(multiplier(s)) for s in (0, 50)][1] < 1 and len(traces) == 1


@pytest.mark.parametrize(
    "change", [{"warmdown_ratio": 1.5}, {"grad_clip": -1.0}, {"warmup_steps": -1}]
)
def test_impossible_settings_are_refused_by_name(change):
    with pytest.raises(ValueError, match=next(iter(change))):
        OptimConfig(**change)
