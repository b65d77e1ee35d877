"""A row read piece by piece through the cache gives the logits of the whole row, in any recipe."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nanochat_jax.config.gpt import GPTConfig, recipe_model_defaults
from nanochat_jax.models.cache import init_cache
from nanochat_jax.models.gpt import GPT, init_params

SHAPE = dict(sequence_len=256, vocab_size=60, n_layer=3, n_head=4, n_kv_head=2, n_embd=32)
LENGTH = 170  # beyond the short window of 128


@pytest.fixture(scope="module", params=[pytest.param("classic", marks=pytest.mark.slow), "current"])
def model(request):
    """(GPT, parameters of which none is neutral, apply)."""
    cfg = GPTConfig(**recipe_model_defaults(request.param), **SHAPE)
    rng = np.random.default_rng(0)
    shapes = jax.eval_shape(lambda: init_params(cfg, jax.random.key(0)))
    params = jax.tree.map(lambda s: jnp.asarray(rng.normal(0, 0.3, s.shape), jnp.float32), shapes)
    gpt = GPT(cfg)
    return cfg, partial(jax.jit(gpt.apply), {"params": params})


@pytest.fixture
def ids():
    return np.random.default_rng(1).integers(0, SHAPE["vocab_size"], (2, LENGTH))


@pytest.mark.slow
def test_pieces_give_what_the_whole_row_gives(model, ids):
    cfg, apply = model
    whole, _ = apply(ids)
    cache, read, got = init_cache(cfg, 2, LENGTH), 0, []
    for size in (1, 1, 130, 3, 35):
        logits, cache = apply(ids[:, read : read + size], cache)
        read += size
        got.append(logits)
    assert read == LENGTH and cache.length_B.tolist() == [LENGTH, LENGTH]
    np.testing.assert_allclose(np.concatenate(got, axis=1), whole, atol=2e-5)


def test_tokens_beyond_a_rows_share_leave_no_trace(model, ids):
    cfg, apply = model
    whole, _ = apply(ids)
    cache = init_cache(cfg, 2, LENGTH)
    _, cache = apply(ids[:, :35], cache, jnp.array([35, 0]))
    _, cache = apply(np.stack([ids[0, 35:70], ids[1, :35]]), cache, jnp.array([3, 35]))
    piece = np.stack([ids[0, 38:41], ids[1, 35:38]])
    logits, cache = apply(piece, cache)
    assert cache.length_B.tolist() == [41, 38]
    want = np.stack([whole[0, 38:41], whole[1, 35:38]])
    np.testing.assert_allclose(logits, want, atol=2e-5)
