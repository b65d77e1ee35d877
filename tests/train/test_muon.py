"""Muon: what an orthogonalised update is, whatever the shape of the matrix."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nanochat_jax.train import muon

SHAPES = [(16, 16), (16, 48), (48, 16), (1, 12), (12, 1)]
BOTH = [muon.newton_schulz, muon.polar_express]


def stack(key, shape, n=3):
    return jax.random.normal(key, (n, *shape))


def singular_values(x_KIO):
    return np.linalg.svd(np.asarray(x_KIO, np.float64), compute_uv=False)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("orthogonalize", BOTH)
def test_the_large_singular_values_come_near_one(key, orthogonalize, shape):
    x = stack(key, shape)
    start = singular_values(x)
    values = singular_values(orthogonalize(x))
    # Newton-Schulz leaves the smallest behind: five steps lift a value about a hundredfold.
    large = start > 0.05 * start.max(axis=-1, keepdims=True)
    assert values.max() < 1.3 and values[large].min() > 0.6


@pytest.mark.parametrize("orthogonalize", BOTH)
def test_it_commutes_with_transposition_and_keeps_matrices_of_a_stack_apart(key, orthogonalize):
    x = stack(key, (12, 20))
    whole = orthogonalize(x)
    np.testing.assert_allclose(orthogonalize(x.mT).mT, whole, atol=2e-5)
    alone = jnp.concatenate([orthogonalize(x[i : i + 1]) for i in range(3)])
    np.testing.assert_allclose(alone, whole, atol=2e-5)


@pytest.mark.parametrize("orthogonalize", BOTH)
def test_its_direction_does_not_depend_on_the_size_of_the_gradient(key, orthogonalize):
    x = stack(key, (12, 20))
    np.testing.assert_allclose(orthogonalize(1e3 * x), orthogonalize(x), atol=2e-4)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize("orthogonalize", BOTH)
def test_zeros_such_as_the_padding_of_a_stack_stay_zeros(orthogonalize, dtype):
    got = orthogonalize(muon.equalize_rows(jnp.zeros((2, 8, 12)), dtype), 5, dtype)
    assert got.dtype == dtype and not np.asarray(got, np.float32).any()


@pytest.mark.parametrize("orthogonalize", BOTH)
def test_bfloat16_is_near_float32(key, orthogonalize):
    x = stack(key, (24, 40))
    fine, coarse = orthogonalize(x), orthogonalize(x, 5, jnp.bfloat16).astype(jnp.float32)
    assert jnp.linalg.norm(fine - coarse) < 0.1 * jnp.linalg.norm(fine)


def test_more_steps_than_polar_express_has_coefficients_for_repeat_the_last(key):
    values = singular_values(muon.polar_express(stack(key, (16, 32)), steps=9))
    assert np.abs(values - 1).max() < 0.1


@pytest.mark.parametrize("shape", SHAPES)
def test_equalized_rows_share_one_norm_and_the_matrix_keeps_its_own(key, shape):
    x = stack(key, shape) * jnp.arange(1.0, shape[1] + 1)[None, None]
    y = muon.equalize_rows(x)
    rows = jnp.linalg.norm(y, axis=-2)
    np.testing.assert_allclose(rows / rows[:, :1], jnp.ones_like(rows), rtol=1e-5)
    np.testing.assert_allclose(muon.frobenius(y), muon.frobenius(x), rtol=1e-5)


@pytest.mark.parametrize("shape", SHAPES)
def test_a_renormalized_matrix_has_the_norm_of_an_orthogonal_one(key, shape):
    norms = muon.frobenius(muon.renormalize(stack(key, shape)))
    np.testing.assert_allclose(norms, jnp.full_like(norms, np.sqrt(min(shape))), rtol=1e-5)


@pytest.mark.parametrize("shape", SHAPES)
def test_variance_reduction_keeps_the_norm_and_its_moment_is_a_vector(key, shape):
    x = stack(key, shape)
    second = jnp.zeros((3, *muon.second_shape(shape)))
    y, new = muon.reduce_variance(x, second, 0.9)
    assert new.shape == second.shape and min(new.shape[1:]) == 1
    assert max(new.shape[1:]) == max(shape)
    np.testing.assert_allclose(muon.frobenius(y), muon.frobenius(x), rtol=1e-4)


def test_the_rate_grows_with_outputs_over_inputs_and_never_shrinks():
    assert muon.lr_scale((16, 64)) == 2.0
    assert muon.lr_scale((64, 16)) == muon.lr_scale((16, 16)) == 1.0


def test_decay_is_left_out_where_it_would_fight_the_update():
    update, w = jnp.array([[1.0, 1.0, -1.0, 0.0]]), jnp.array([[2.0, -2.0, -2.0, 5.0]])
    np.testing.assert_array_equal(muon.cautious(update, w), [[2.0, 0.0, -2.0, 5.0]])
