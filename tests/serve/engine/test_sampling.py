from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nanochat_jax.serve.engine import sampling
from nanochat_jax.serve.engine.draw_kernel import draw
from nanochat_jax.serve.engine.rows import idle_rows
from nanochat_jax.serve.engine.sampling import ordered_bits, sample, sampling_probs, uniform
from tests.lowered import text_for_gpu

V = 50


def logits(rows: int = 4) -> jax.Array:
    return 3 * jax.random.normal(jax.random.key(1), (rows, V))


def rows_with(count: int, **values):
    rows = idle_rows(count, 1)
    for name, value in values.items():
        getattr(rows, name)[:] = value
    return rows


def drawn(x_BV, rows, step_B=None, by=sample):
    settings = map(jnp.asarray, (rows.temperature_B, rows.top_k_B, rows.top_p_B))
    return by(x_BV, *settings, uniform(rows.seed_B, rows.step_B if step_B is None else step_B))


def slow_probs(x_V, temperature, top_k, top_p):
    """The definition: sort, cut, renormalise."""
    order = np.argsort(-x_V, kind="stable")
    kept = order[: top_k or len(order)]
    p = np.exp((x_V[kept] - x_V.max()) / temperature)
    p /= p.sum()
    if top_p < 1:
        count = int(np.searchsorted(np.cumsum(p), top_p - 1e-7)) + 1
        kept, p = kept[:count], p[:count] / p[:count].sum()
    out = np.zeros(len(x_V))
    out[kept] = p
    return out


@pytest.mark.slow
@settings(deadline=None, max_examples=30)
@given(
    st.lists(
        st.tuples(st.floats(0.1, 2), st.integers(0, V + 5), st.sampled_from([0.1, 0.5, 0.93, 1.0])),
        min_size=4,
        max_size=4,
    )
)
def test_every_row_is_cut_by_its_own_top_k_and_top_p(rows):
    x_BV = logits()
    temperature_B, top_k_B, top_p_B = (np.array(column) for column in zip(*rows, strict=True))
    probs_BV = sampling_probs(
        x_BV, jnp.float32(temperature_B), jnp.int32(top_k_B), jnp.float32(top_p_B)
    )
    probs_BV = probs_BV / probs_BV.sum(-1, keepdims=True)
    for row, (temperature, top_k, top_p) in enumerate(rows):
        expected_V = slow_probs(np.asarray(x_BV[row], np.float64), temperature, top_k, top_p)
        np.testing.assert_allclose(probs_BV[row], expected_V, atol=1e-5)


@pytest.mark.parametrize("highest", [1, 5, V, 2 * V])
def test_the_few_largest_by_sorting_are_those_of_the_search(highest):
    x_BV = jnp.round(4 * logits(64)) / 4  # so that many are equal
    top_k_B = jnp.asarray(np.random.default_rng(0).integers(0, highest + 1, 64), jnp.int32)
    kept = lambda floor: jax.jit(lambda *a: ordered_bits(x_BV) >= floor(*a)[:, None])(x_BV, top_k_B)
    np.testing.assert_array_equal(kept(sampling._kth_of_few), kept(sampling._kth_by_search))


def test_every_token_is_drawn_as_often_as_its_probability_says():
    count = 4000
    x_BV = jnp.tile(logits(1), (count, 1))
    rows = rows_with(count, temperature_B=0.8, top_k_B=10, seed_B=np.arange(count))
    drawn_B = np.asarray(drawn(x_BV, rows))
    settings = (rows.temperature_B[:1], rows.top_k_B[:1], rows.top_p_B[:1])
    probs_V = np.asarray(sampling_probs(x_BV[:1], *map(jnp.asarray, settings))[0])
    found_V = np.bincount(drawn_B, minlength=V) / count
    assert (found_V[probs_V == 0] == 0).all()
    assert (found_V[probs_V > 0] > 0).all() and (probs_V > 0).sum() == 10
    deviation_V = np.sqrt(probs_V * (1 - probs_V) / count)
    assert (np.abs(found_V - probs_V) <= 4 * deviation_V + 1e-6).all()


@pytest.mark.parametrize("values", [{"temperature_B": 0.0}, {"temperature_B": 1.0, "top_k_B": 1}])
def test_temperature_zero_and_top_k_one_are_greedy(values):
    x_BV = logits()
    rows = rows_with(4, **values)
    np.testing.assert_array_equal(drawn(x_BV, rows), jnp.argmax(x_BV, -1))


def test_a_draw_depends_on_its_own_seed_and_step_alone():
    x_BV = jnp.tile(logits(1), (3, 1))
    rows = rows_with(3, temperature_B=1.0, seed_B=np.array([7, 1, 2]))
    other = rows_with(3, temperature_B=np.array([1.0, 0, 2]), seed_B=np.array([7, 8, 9]))
    step_B = jnp.array([5, 0, 1])
    assert drawn(x_BV, rows, step_B)[0] == drawn(x_BV, other, step_B)[0]
    many = [int(drawn(x_BV, rows, jnp.full(3, step))[0]) for step in range(30)]
    assert len(set(many)) > 3


@pytest.mark.slow
def test_the_kernel_for_gpus_draws_the_same_tokens():
    """As an interpreter runs it; sums in another order could move a token in a million."""
    rng, count = np.random.default_rng(0), 96
    x_BV = jnp.asarray(2 * rng.normal(size=(count, 1000)), jnp.float32)
    rows = rows_with(
        count,
        temperature_B=rng.choice([0, 0.5, 1.0, 1.5], count),
        top_k_B=rng.choice([0, 1, 5, 50, 2000], count),
        top_p_B=rng.choice([1.0, 0.9, 0.3], count),
        seed_B=np.arange(count),
    )
    kernel = partial(draw, chunk=256, interpret=True)
    np.testing.assert_array_equal(drawn(x_BV, rows, by=kernel), drawn(x_BV, rows))


def test_the_kernel_can_be_compiled_for_a_gpu():
    shaped = lambda dtype, *shape: jax.ShapeDtypeStruct(shape, dtype)
    settings = (shaped(t, 4) for t in (jnp.float32, jnp.int32, jnp.float32, jnp.float32))
    assert "triton" in text_for_gpu(draw, shaped(jnp.float32, 4, 65536), *settings)
