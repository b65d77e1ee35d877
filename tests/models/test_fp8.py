"""Eight-bit products are what numpy makes of them, and stand where the blocks' products stood."""

import re
from functools import partial

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest

from nanochat_jax.config.gpt import GPTConfig
from nanochat_jax.models import fp8
from nanochat_jax.models.gpt import GPT, init_params
from nanochat_jax.models.loss import weighted_loss
from nanochat_jax.sharding import make_mesh
from nanochat_jax.train.step import gradients

N, I, O = 48, 128, 256  # noqa: E741
CFG = GPTConfig(
    sequence_len=16, vocab_size=256, n_layer=2, n_head=1, n_kv_head=1, n_embd=128,
    value_embeds=True, ve_gate_width=12, smear=True,
)  # fmt: skip


def arrays(dtype=np.float32, seed=0):
    """x, W and the gradient by y, of quite different sizes, with a few large entries."""
    draw = np.random.default_rng(seed).standard_t
    sizes = {(N, I): 3.0, (I, O): 0.02, (N, O): 1e-5}
    return [(size * draw(4, shape)).astype(dtype) for shape, size in sizes.items()]


def eight_bits(x, dtype):
    """What ml_dtypes rounds the scaled tensor to, scaled back, exactly (float64)."""
    end = np.float32(ml_dtypes.finfo(dtype).max)
    unit = np.maximum(np.abs(x.astype(np.float32)).max(), np.float32(1e-12)) / end
    values = np.clip(x.astype(np.float32) / unit, -end, end).astype(dtype)
    return values.astype(np.float64) * np.float64(unit)


def expected(x_NI, kernel_IO, dy_NO):
    x_NI, kernel_IO = (eight_bits(a, ml_dtypes.float8_e4m3fn) for a in (x_NI, kernel_IO))
    dy_NO = eight_bits(dy_NO, ml_dtypes.float8_e5m2)
    return x_NI @ kernel_IO, dy_NO @ kernel_IO.T, x_NI.T @ dy_NO


@jax.jit
def ours(x_NI, kernel_IO, dy_NO):
    y_NO, back = jax.vjp(fp8.matmul, x_NI, kernel_IO)
    return y_NO, *back(dy_NO)


def test_what_rematerialisation_keeps_stays_what_it_was():
    x_NI, kernel_IO, dy_NO = arrays()
    keeps = jax.checkpoint(fp8.matmul, policy=jax.checkpoint_policies.everything_saveable)
    both = jax.jit(lambda *args: jax.vjp(keeps, *args)[1](dy_NO))
    for got, want in zip(both(x_NI, kernel_IO), ours(*arrays())[1:], strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-6)


# In bfloat16 the product, the unit and their product are rounded once each.
@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(np.float32, 2e-6), (ml_dtypes.bfloat16, 3 * 2**-8)]
)
def test_the_product_and_both_gradients_are_those_of_rounded_tensors(dtype, tolerance):
    given = arrays(dtype)
    for got, want in zip(ours(*given), expected(*given), strict=True):
        assert got.dtype == dtype and got.shape == want.shape
        got, size = np.asarray(got, np.float64), np.abs(want).max()
        np.testing.assert_allclose(got, want, rtol=tolerance, atol=tolerance * 0.01 * size)


def test_they_are_near_the_exact_ones_and_no_nearer_than_eight_bits_allow():
    x_NI, kernel_IO, dy_NO = arrays()
    exact = x_NI @ kernel_IO, dy_NO @ kernel_IO.T, x_NI.T @ dy_NO
    pairs = zip(ours(*arrays()), exact, strict=True)
    off = [np.linalg.norm(a - b) / np.linalg.norm(b) for a, b in pairs]
    assert 0.02 < off[0] < 0.05
    assert all(0.04 < o < 0.09 for o in off[1:])  # one mantissa bit fewer in the gradient


@pytest.mark.parametrize("dtype", [fp8.FORWARD, fp8.BACKWARD])
@pytest.mark.parametrize("size", [1e-30, 1e-7, 1.0, 3.3, 1e6, 1e30])
def test_the_largest_entry_lies_at_the_end_of_the_range_and_never_past_it(dtype, size):
    values, unit = jax.jit(partial(fp8.scaled, dtype=dtype))(size * arrays()[0])
    values, end = np.asarray(values, np.float64), float(jnp.finfo(dtype).max)
    largest = np.abs(size * arrays()[0]).max()
    assert np.isfinite(values).all() and np.abs(values).max() <= end
    assert unit == pytest.approx(max(largest, fp8.SMALLEST) / end, rel=1e-6)
    assert np.abs(values).max() == (end if largest >= fp8.SMALLEST else 0)


def test_of_zeros_come_zeros():
    x_NI, kernel_IO, dy_NO = arrays()
    for given in ((0 * x_NI, kernel_IO, dy_NO), (x_NI, 0 * kernel_IO, 0 * dy_NO)):
        y_NO, dx_NI, dkernel_IO = ours(*given)
        assert not jnp.any(y_NO) and jnp.all(jnp.isfinite(dx_NI)) and not jnp.any(dkernel_IO)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("which", range(3))
def test_one_bad_entry_is_seen_in_every_result_that_it_enters(bad, which):
    given = arrays()
    given[which][3, 5] = bad
    enters = [(True, False, True), (True, True, False), (False, True, True)][which]
    for got, entered in zip(ours(*given), enters, strict=True):
        assert bool(jnp.any(jnp.isnan(got))) == entered


@pytest.mark.parametrize(
    ("shape", "eight"), [((128, 128), True), ((64, 128), False), ((128, 1000), False)]
)
def test_what_tensor_cores_do_not_like_is_multiplied_as_ever(shape, eight):
    assert fp8.suits(shape) == eight
    x_NI, kernel_IO = np.ones((2, 3, shape[0]), np.float32), np.full(shape, 0.1, np.float32)
    product = jax.jit(partial(fp8.dot_general, dims=(((2,), (0,)), ((), ()))))
    assert product(x_NI, kernel_IO).shape == (2, 3, shape[1])
    assert ("f8E4M3FN" in product.lower(x_NI, kernel_IO).as_text()) == eight


def loss_of(model, params, tokens_BT):
    weights_BT = jnp.full(tokens_BT.shape, 1 / tokens_BT.size)
    return weighted_loss(model, params, tokens_BT, jnp.roll(tokens_BT, -1, axis=1), weights_BT)


@pytest.fixture(scope="module")
def start():
    """Parameters without zero matrices, and rows."""
    params = init_params(CFG, jax.random.key(0))
    keys = iter(jax.random.split(jax.random.key(1), 99))
    stir = lambda p: p + 0.05 * jax.random.normal(next(keys), p.shape)
    return jax.tree.map(stir, params), jax.random.randint(next(keys), (2, 16), 0, 256)


def products(model, platform):
    """Operand types of every product of a loss and its gradient, as lowered for the platform."""
    args = jax.eval_shape(lambda: init_params(CFG, jax.random.key(0))), jnp.zeros((2, 16), int)
    traced = jax.jit(jax.grad(partial(loss_of, model))).trace(*args)
    text = traced.lower(lowering_platforms=(platform,)).as_text()
    found = re.findall(r"stablehlo.dot_general.*: \(tensor<[^>]*x(\w+)>, tensor<[^>]*x(\w+)>", text)
    assert len(found) == text.count("stablehlo.dot_general")
    return found


@pytest.mark.parametrize("platform", ["cuda", "cpu"])
@pytest.mark.parametrize("remat", ["none", "dots"])
def test_each_matrix_of_a_block_multiplies_in_eight_bits_thrice_and_nothing_else_does(
    platform, remat
):
    kinds = dict(dtype=jnp.bfloat16, remat=remat, attention="blocks")
    plain, eight = (products(GPT(CFG, fp8=on, **kinds), platform) for on in (False, True))
    matrices = 6 * CFG.n_layer
    assert not any("f8" in kind for pair in plain for kind in pair)
    assert eight.count(("f8E4M3FN", "f8E4M3FN")) == matrices
    assert eight.count(("f8E5M2", "f8E4M3FN")) == matrices
    assert eight.count(("f8E4M3FN", "f8E5M2")) == matrices
    assert sum(any("f8" in kind for kind in pair) for pair in eight) == 3 * matrices
    assert len(eight) == len(plain)


@pytest.mark.slow
def test_a_models_loss_and_gradient_stay_close(start):
    params, tokens_BT = start
    results = [
        jax.jit(jax.value_and_grad(partial(loss_of, GPT(CFG, fp8=on))))(params, tokens_BT)
        for on in (False, True)
    ]
    (loss, grads), (loss8, grads8) = results
    assert 0 < abs(loss - loss8) < 0.02 * loss
    for want, got in zip(jax.tree.leaves(grads), jax.tree.leaves(grads8), strict=True):
        cosine = jnp.vdot(want, got) / (jnp.linalg.norm(want) * jnp.linalg.norm(got))
        assert cosine > 0.97 or jnp.linalg.norm(want) == 0


@pytest.mark.slow
@pytest.mark.parametrize("remat", ["dots", "full"])
def test_what_is_computed_again_is_the_same(start, remat):
    one, two = (
        jax.jit(jax.grad(partial(loss_of, GPT(CFG, fp8=True, remat=kept))))(*start)
        for kept in ("none", remat)
    )
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(two), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-3 * np.abs(a).max())


@pytest.mark.slow
def test_micro_batches_and_devices_are_scaled_each_by_its_own_and_add_up(start):
    params, tokens_BT = start
    model = GPT(CFG, fp8=True)
    rows = tokens_BT[:, None]  # two micro-batches of one row
    weights = jnp.full(rows.shape, 1 / rows.size)
    of = jax.jit(partial(gradients, model), static_argnames="mesh")
    parts = [of(params, rows[i : i + 1], rows[i : i + 1], weights[:1]) for i in range(2)]
    together = [of(params, rows, rows, weights)]
    dealt = [a.swapaxes(0, 1) for a in (rows, rows, weights)]
    together += [of(params, *dealt, mesh=make_mesh(text)) for text in ("data=2", "fsdp=2")]
    want = jax.tree.map(jnp.add, *parts)
    for got in together:
        for a, b in zip(jax.tree.leaves(want), jax.tree.leaves(got), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-3 * np.abs(a).max())
