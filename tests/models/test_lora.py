"""Adapters beside the matrices: the same model as merged ones, and none at all where B is zero."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nanochat_jax.models import lora
from nanochat_jax.models.gpt import Model
from tests.serve.world import random_model

IDS = np.arange(24).reshape(2, 12)
ADAPTED = ["attn/c_k", "attn/c_proj", "attn/c_q", "attn/c_v", "mlp/c_fc", "mlp/c_proj"]


def adapters_of(model, key, rank=3):
    """Random ones, B too: of a size that moves logits."""
    fresh = lora.init_adapters(model.params, rank, key)
    return jax.tree.map(lambda x: x + 0.1 * jax.random.normal(key, x.shape), fresh)


@pytest.mark.parametrize("recipe", ["classic", "current"])
def test_merged_adapters_are_those_beside_the_matrices(recipe, key):
    model = random_model(recipe)
    paths = ["/".join(path) for path in lora.targets(model.params)]
    assert sorted(paths) == sorted(f"h_{i}/{name}" for i in range(2) for name in ADAPTED)
    adapters = adapters_of(model, key)
    beside = Model(model.gpt, lora.attached(model.params, adapters))(IDS)
    np.testing.assert_allclose(
        Model(model.gpt, lora.merged(model.params, adapters))(IDS), beside, atol=2e-5
    )
    assert np.abs(beside - model(IDS)).max() > 0.1


def test_fresh_adapters_leave_the_model_as_it_is_to_the_bit(key):
    model = random_model()
    fresh = lora.init_adapters(model.params, 4, key)
    for made in (lora.attached, lora.merged):
        got = Model(model.gpt, made(model.params, fresh))(IDS)
        np.testing.assert_array_equal(got, model(IDS))


def test_merging_keeps_the_types_of_a_checkpoint_from_elsewhere(key):
    params = jax.tree.map(lambda x: x.astype(jnp.bfloat16), random_model().params)
    fresh = lora.init_adapters(params, 1, key)
    assert {x.dtype.name for x in jax.tree.leaves(lora.merged(params, fresh))} == {"bfloat16"}


def test_a_rank_that_no_matrix_has_is_refused():
    params = random_model().params  # of one key-value head, 16 wide
    lora.check_rank(params, 16)
    with pytest.raises(ValueError, match="--lora-rank is 17, but h_0/attn/c_k is 32 x 16.*16 or"):
        lora.check_rank(params, 17)
