"""Muon: what an orthogonalised update is, whatever the shape of the matrix."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nanochat_jax.train import muon

SHAPES = [(16, 16), (12, 20), (20, 12), (12, 1)]
compiled = lambda f: jax.jit(f, static_argnums=(1, 2))
BOTH = [pytest.param(compiled(f), id=f.__name__) for f in (muon.newton_schulz, muon.polar_express)]


def stack(key, shape, n=3):
    return jax.random.normal(key, (n, *shape))


def singular_values(x_KIO):
    return np.linalg.svd(np.asarray(x_KIO, np.float64), compute_uv=False)


def norms(x_KIO):
    return np.linalg.norm(np.asarray(x_KIO, np.float64), axis=(1, 2))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("orthogonalize", BOTH)
def test_the_large_singular_values_come_near_one(key, orthogonalize, shape):
    x = stack(key, shape)
    start, values = singular_values(x), singular_values(orthogonalize(x, 5, jnp.float32))
    # Newton-Schulz leaves the smallest behind: five steps lift a value about a hundredfold.
    large = start > 0.05 * start.max(axis=-1, keepdims=True)
    assert values.max() < 1.3 and values[large].min() > 0.6


@pytest.mark.parametrize("orthogonalize", BOTH)
def test_it_commutes_with_transposition_and_keeps_matrices_of_a_stack_apart(key, orthogonalize):
    x = stack(key, (12, 20))
    whole = np.asarray(orthogonalize(x, 5, jnp.float32))
    turned = np.asarray(orthogonalize(x.mT, 5, jnp.float32))
    np.testing.assert_allclose(turned.swapaxes(1, 2), whole, atol=2e-5)
    alone = [np.asarray(orthogonalize(x[i : i + 1], 5, jnp.float32)) for i in range(3)]
    np.testing.assert_allclose(np.concatenate(alone), whole, atol=2e-5)


@pytest.mark.parametrize("orthogonalize", BOTH)
def test_its_direction_does_not_depend_on_the_size_of_the_gradient(key, orthogonalize):
    x = stack(key, (12, 20))
    got, want = (orthogonalize(scale * x, 5, jnp.float32) for scale in (1e3, 1.0))
    np.testing.assert_allclose(got, want, atol=2e-4)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize("orthogonalize", BOTH)
def test_zeros_such_as_the_padding_of_a_stack_stay_zeros(orthogonalize, dtype):
    x = jax.jit(muon.equalize_rows, static_argnums=1)(jnp.zeros((3, 12, 20)), dtype)
    got = orthogonalize(x, 5, dtype)
    assert got.dtype == dtype and not np.asarray(got, np.float32).any()


@pytest.mark.parametrize("orthogonalize", BOTH)
def test_bfloat16_is_near_float32(key, orthogonalize):
    x = stack(key, (12, 20))
    fine, coarse = (
        np.asarray(orthogonalize(x, 5, dtype), np.float32) for dtype in (jnp.float32, jnp.bfloat16)
    )
    assert np.linalg.norm(fine - coarse) < 0.1 * np.linalg.norm(fine)


def test_more_steps_than_polar_express_has_coefficients_for_repeat_the_last(key):
    values = singular_values(compiled(muon.polar_express)(stack(key, (12, 20)), 9, jnp.float32))
    assert np.abs(values - 1).max() < 0.1


@pytest.mark.parametrize("shape", SHAPES)
def test_equalized_rows_share_one_norm_and_the_matrix_keeps_its_own(key, shape):
    x = stack(key, shape) * jnp.arange(1.0, shape[1] + 1)[None, None]
    y = np.asarray(jax.jit(muon.equalize_rows)(x))
    rows = np.linalg.norm(y, axis=-2)
    np.testing.assert_allclose(rows, np.broadcast_to(rows[:, :1], rows.shape), rtol=1e-5)
    np.testing.assert_allclose(norms(y), norms(x), rtol=1e-5)


@pytest.mark.parametrize("shape", SHAPES)
def test_a_renormalized_matrix_has_the_norm_of_an_orthogonal_one(key, shape):
    got = norms(jax.jit(muon.renormalize)(stack(key, shape)))
    np.testing.assert_allclose(got, np.sqrt(min(shape)), rtol=1e-5)


@pytest.mark.parametrize("shape", SHAPES)
def test_variance_reduction_keeps_the_norm_and_its_moment_is_a_vector(key, shape):
    x = stack(key, shape)
    second = jnp.zeros((3, *muon.second_shape(shape)))
    y, new = jax.jit(muon.reduce_variance, static_argnums=2)(x, second, 0.9)
    assert new.shape == second.shape and min(new.shape[1:]) == 1
    assert max(new.shape[1:]) == max(shape)
    np.testing.assert_allclose(norms(y), norms(x), rtol=1e-4)


def test_the_rate_grows_with_outputs_over_inputs_and_never_shrinks():
    assert muon.lr_scale((16, 64)) == 2.0
    assert muon.lr_scale((64, 16)) == muon.lr_scale((16, 16)) == 1.0


def test_decay_is_left_out_where_it_would_fight_the_update():
    update, w = jnp.array([[1.0, 1.0, -1.0, 0.0]]), jnp.array([[2.0, -2.0, -2.0, 5.0]])
    np.testing.assert_array_equal(muon.cautious(update, w), [[2.0, 0.0, -2.0, 5.0]])
