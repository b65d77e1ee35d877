"""Horizons and batches: which setting wins, and what is refused."""

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nanochat_jax.config import scaling
from nanochat_jax.config.optim import DEFAULTS, OptimConfig
from nanochat_jax.train import peaks

OPTIM = OptimConfig(**DEFAULTS["current"]["base"])
steps = lambda n=-1, flops=-1.0, tokens=0, batch=1000: scaling.iterations(
    n, flops, tokens, 10.0, batch
)


def test_steps_go_before_flops_and_flops_before_tokens():
    assert steps(n=7, flops=1e6, tokens=9000) == 7
    assert steps(flops=1e6, tokens=9000) == 100
    assert steps(tokens=9999) == 9


def test_a_run_without_a_horizon_is_refused_with_the_three_settings():
    with pytest.raises(ValueError, match="num_iterations, target_flops, target_param_data_ratio"):
        steps()


def test_a_horizon_shorter_than_a_step_is_refused():
    with pytest.raises(ValueError, match="shorter than one step of 1000 tokens"):
        steps(tokens=999)


@given(horizon=st.floats(1e6, 1e13))
def test_the_derived_batch_is_a_power_of_two_that_grows_with_the_horizon(horizon):
    batch = scaling.auto_batch_size(horizon, 1e9)
    assert batch & (batch - 1) == 0
    assert batch <= scaling.auto_batch_size(4 * horizon, 1e9)
    assert scaling.auto_batch_size(1e9, 1e9) == scaling.REFERENCE_BATCH


def test_at_the_reference_nothing_is_scaled():
    assert scaling.scaled(OPTIM, scaling.REFERENCE_BATCH, 1e9, 1e9) == OPTIM


@given(power=st.integers(10, 24), horizon=st.floats(1e6, 1e13))
def test_the_product_of_rate_decay_and_horizon_per_batch_is_kept(power, horizon):
    timescale = lambda o, batch, tokens: o.matrix_lr * o.weight_decay * tokens / batch
    got = scaling.scaled(OPTIM, 2**power, horizon, 1e9)
    want = timescale(OPTIM, scaling.REFERENCE_BATCH, 1e9)
    assert timescale(got, 2**power, horizon) == pytest.approx(want, rel=1e-9)
    assert got.smear_lr == OPTIM.smear_lr


def test_weight_decay_of_embeddings_is_not_scaled():
    optim = dataclasses.replace(OPTIM, weight_decay_on="embeddings")
    assert scaling.scaled(optim, 2**21, 4e9, 1e9).weight_decay == optim.weight_decay


def test_a_batch_cannot_be_derived_without_a_ratio():
    with pytest.raises(ValueError, match="target_param_data_ratio"):
        scaling.auto_batch_size(0, 0)


def test_an_unknown_device_has_no_peak_and_no_utilisation():
    assert peaks.mfu(1e9, 1e6, "toaster") == 0.0
    assert peaks.mfu(1e9, 989e3, "NVIDIA H100 80GB HBM3", 1) == pytest.approx(100.0)
    assert peaks.mfu(1e9, 989e3, "NVIDIA H100 80GB HBM3", 8) == pytest.approx(12.5)


def test_rates_scale_with_the_root_of_the_batch():
    plan = scaling.scaled(OPTIM, 4 * scaling.REFERENCE_BATCH, 1e9, 1e9)
    for name in ("embedding_lr", "unembedding_lr", "matrix_lr", "scalar_lr"):
        assert getattr(plan, name) == pytest.approx(2 * getattr(OPTIM, name))


def test_a_ratio_of_zero_with_scaled_rates_is_refused():
    with pytest.raises(ValueError, match="scale_to_batch"):
        scaling.scaled(OPTIM, 1024, 0, 0)
