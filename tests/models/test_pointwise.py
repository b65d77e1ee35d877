"""Norm, rotation and activation: gradients of the plain formulas, from as little as they say."""

import collections

import jax
import jax.numpy as jnp
import pytest

from nanochat_jax.config.gpt import GPTConfig, recipe_model_defaults
from nanochat_jax.models.attention import rotary_tables
from nanochat_jax.models.gpt import GPT, init_params
from nanochat_jax.models.pointwise import rms_norm, rotate, rotated_norm, squared_relu

B, T, N, H, EPS, LENGTH = 2, 12, 3, 16, 1e-6, 1.2


def plain_norm(x):
    x32 = x.astype(jnp.float32)
    mean = jnp.mean(x32 * x32, axis=-1, keepdims=True)
    return (x32 * jax.lax.rsqrt(mean + EPS)).astype(x.dtype)


def tables(recipe, dtype):
    cfg = GPTConfig(n_embd=N * H, n_head=N, n_kv_head=N, **recipe_model_defaults(recipe))
    return rotary_tables(cfg, jnp.arange(100, 100 + T)[None], dtype)


def pairs(dtype):
    """(ours, the formula left to automatic differentiation) of every function."""
    classic, current = (tables(recipe, dtype) for recipe in ("classic", "current"))
    turned = lambda x, t: LENGTH * plain_norm(rotate(x, t))
    return {
        "norm": (lambda x: rms_norm(x, EPS), plain_norm),
        "rotation by rounded tables": (
            lambda x: rotated_norm(x, classic, EPS, 1.0),
            lambda x: plain_norm(rotate(x, classic)),
        ),
        "rotation by exact tables": (
            lambda x: rotated_norm(x, current, EPS, LENGTH),
            lambda x: turned(x, current),
        ),
        "squared relu": (squared_relu, lambda x: jnp.square(jax.nn.relu(x))),
    }


def apart(function, formula, dtype):
    """How far value and gradient lie from the formula's in float32, relative to their norms."""
    x, cotangent = (jax.random.normal(jax.random.key(i), (B, T, N, H), dtype) for i in (0, 1))
    value, back = jax.vjp(function, x)
    exact, exact_back = jax.vjp(formula, x.astype(jnp.float32))
    both = (value, exact), (back(cotangent)[0], exact_back(cotangent.astype(jnp.float32))[0])
    assert value.dtype == both[1][0].dtype == dtype
    return [float(jnp.linalg.norm(a - b) / jnp.linalg.norm(b)) for a, b in both]


@pytest.mark.parametrize("name", pairs(jnp.float32))
def test_values_and_gradients_are_those_of_the_formula(name):
    ours, formula = pairs(jnp.float32)[name]
    assert max(apart(ours, formula, jnp.float32)) <= 1e-6


@pytest.mark.parametrize("name", pairs(jnp.float32))
def test_in_bfloat16_they_are_off_by_roundings_of_the_result_alone(name):
    # One rounding is 2^-9 at most, 0.0011 on average; the square rounds relu(x) x relu(x), and its
    # gradient twice.
    ours, _ = pairs(jnp.bfloat16)[name]
    _, formula = pairs(jnp.float32)[name]
    assert max(apart(ours, formula, jnp.bfloat16)) <= 0.003


def test_a_length_of_zero_and_a_negative_number_have_finite_gradients():
    nothing = jnp.zeros((1, T, 1, H))
    for ours, _ in pairs(jnp.float32).values():
        assert jnp.all(jnp.isfinite(jax.grad(lambda x, f=ours: f(x).sum())(nothing)))
    assert jax.grad(squared_relu)(-3.0) == 0


WIDTH = 64


def kept_by_a_layer(recipe: str, remat: str) -> collections.Counter:
    """What two more layers hand to the backward pass in bfloat16, halved: elements by type.

    Two, since every second layer of `current` has a value embedding; in units of `[B, T, WIDTH]`,
    weights (which no pass makes) left out.
    """
    ids = jnp.zeros((B, T), jnp.int32)

    def kept(layers):
        shape = dict(n_layer=layers, n_embd=WIDTH, n_head=4, n_kv_head=4)
        cfg = GPTConfig(sequence_len=T, vocab_size=48, **shape, **recipe_model_defaults(recipe))
        gpt = GPT(cfg, dtype=jnp.bfloat16, attention="blocks", remat=remat)
        params = jax.eval_shape(lambda: init_params(cfg, jax.random.key(0)))
        hidden = lambda p: gpt.apply({"params": p}, ids, method="hidden")[0]
        saved = jax.tree.leaves(jax.eval_shape(lambda p: jax.vjp(hidden, p)[1], params))
        sizes = collections.Counter()
        for leaf in saved:
            if leaf.shape[:1] == (B,) and leaf.size >= B * T:
                sizes[leaf.dtype.name] += leaf.size / (B * T * WIDTH)
        return sizes

    two, four = kept(2), kept(4)
    return {name: (four[name] - two[name]) / 2 for name in four}


# Of 16: the stream twice, both norms, queries, keys and values, attention's result (seen twice,
# with and without its heads), relu(x) and its square (4 each).
@pytest.mark.parametrize("remat, widths", [("none", 17), ("dots", 10), ("full", 2)])
def test_a_layer_keeps_its_products_inputs_in_the_type_that_computes(remat, widths):
    kept = kept_by_a_layer("classic", remat)
    assert kept["bfloat16"] == widths


@pytest.mark.parametrize("recipe", ["classic", "current"])
@pytest.mark.parametrize("remat", ["none", "dots", "full"])
def test_what_is_kept_in_float32_is_one_number_a_head(recipe, remat):
    # The logarithm of a query's sum, and the norms of queries and keys.
    numbers = 1 if remat == "full" else 3
    assert kept_by_a_layer(recipe, remat)["float32"] == numbers * 4 / WIDTH


def test_two_recipes_differ_by_gate_and_value_embedding_alone():
    kept = {
        recipe: kept_by_a_layer(recipe, "none")["bfloat16"] for recipe in ("classic", "current")
    }
    assert kept["classic"] < kept["current"] <= kept["classic"] + 1.5
