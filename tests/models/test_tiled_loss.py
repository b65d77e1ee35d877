"""The loss in tiles is the loss: value, both gradients, every kind of row."""

import re

import jax
import jax.numpy as jnp
import pytest

from nanochat_jax.models import loss as losses
from nanochat_jax.models.loss import Head, tile_rows, token_nll, weighted_nll

N, D, V, PADDED = 130, 32, 100, 128


def rows(dtype=jnp.float32):
    keys = jax.random.split(jax.random.key(0), 4)
    x_ND = jax.random.normal(keys[0], (N, D), dtype)
    kernel_DV = jax.random.normal(keys[1], (D, PADDED))
    targets_N = jax.random.randint(keys[2], (N,), -1, V)
    return x_ND, kernel_DV, targets_N, jax.random.uniform(keys[3], (N,))


def plain(x_ND, kernel_DV, targets_N, head):
    z_NV = x_ND @ kernel_DV[:, :V].astype(x_ND.dtype)
    z_NV = z_NV.astype(jnp.float32) if head.softcap_dtype == "float32" else z_NV
    if not head.softcap:
        return token_nll(z_NV, targets_N)
    cap = jnp.asarray(head.softcap, z_NV.dtype)
    return token_nll((cap * jnp.tanh(z_NV / cap)).astype(jnp.float32), targets_N)


@pytest.fixture(params=[7, 50, 10_000], ids=lambda n: f"tiles of {n}")
def tiles(request, monkeypatch):
    monkeypatch.setattr(losses, "TILE_BYTES", 4 * V * request.param)


@pytest.mark.parametrize("softcap, dtype", [(15.0, "float32"), (15.0, "compute"), (0.0, "compute")])
def test_loss_and_gradients_are_those_of_whole_logits(softcap, dtype, tiles):
    x_ND, kernel_DV, targets_N, weights_N = rows()
    head = Head(softcap, dtype, V)
    whole = lambda x, k: jnp.vdot(plain(x, k, targets_N, head), weights_N, precision="highest")
    ours = lambda x, k: weighted_nll(x, k, targets_N, weights_N, head)
    expected, got = (jax.value_and_grad(f, (0, 1))(x_ND, kernel_DV) for f in (whole, ours))
    for a, b in zip(jax.tree.leaves(expected), jax.tree.leaves(got), strict=True):
        assert jnp.linalg.norm(a - b) <= 1e-6 * jnp.linalg.norm(a)


def test_the_gradient_is_scaled_by_what_comes_from_above():
    x_ND, kernel_DV, targets_N, weights_N = rows()
    loss = lambda k: weighted_nll(x_ND, k, targets_N, weights_N, Head(15.0, "float32", V))
    once, thrice = jax.grad(loss)(kernel_DV), jax.grad(lambda k: 3.0 * loss(k))(kernel_DV)
    assert jnp.allclose(3.0 * once, thrice, rtol=1e-6)


def test_rows_without_any_target_give_zero_and_no_gradient():
    x_ND, kernel_DV, _, weights_N = rows()
    nothing = jnp.full(N, -1)
    head = Head(15.0, "float32", V)
    loss = lambda x, k: weighted_nll(x, k, nothing, weights_N, head)
    value, grads = jax.value_and_grad(loss, (0, 1))(x_ND, kernel_DV)
    assert value == 0 and not any(jnp.any(g) for g in grads)


def test_no_array_holds_float32_logits_of_all_tokens(monkeypatch):
    monkeypatch.setattr(losses, "TILE_BYTES", 4 * V * 10)
    x_ND, kernel_DV, targets_N, weights_N = rows()
    loss = lambda x, k: weighted_nll(x, k, targets_N, weights_N, Head(15.0, "float32", V))
    text = jax.jit(jax.grad(loss, (0, 1))).lower(x_ND, kernel_DV).as_text()
    assert re.search(rf"tensor<10x{V}xf32>", text)
    assert not re.search(rf"tensor<(13x10|{N})x{V}xf32>", text)


def test_a_cpu_takes_tiles_that_stay_in_its_cache_and_others_the_large_ones():
    x_ND, targets_N = jnp.zeros((2048, 8)), jnp.zeros(2048, jnp.int32)
    loss = lambda x, k: weighted_nll(x, k, targets_N, jnp.ones(2048), Head(15.0, "float32", 4096))
    traced = jax.jit(jax.grad(loss, (0, 1))).trace(x_ND, jnp.zeros((8, 4096)))
    here, on_a_gpu = (traced.lower(lowering_platforms=(p,)).as_text() for p in ("cpu", "cuda"))
    assert "tensor<256x4096xf32>" in here and "tensor<2048x4096xf32>" not in here
    assert "tensor<2048x4096xf32>" in on_a_gpu and "tensor<256x4096xf32>" not in on_a_gpu


@pytest.mark.parametrize(("vocab_size", "rows"), [(1024, 1024), (4096, 256), (65536, 256)])
def test_a_cpus_tiles_are_not_so_short_that_the_gradient_is_all_they_read(vocab_size, rows):
    assert tile_rows(2048, vocab_size, on_cpu=True) == rows
