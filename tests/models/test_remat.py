"""What a backward pass computes again changes no gradient, and what is kept is what was said."""

import jax
import jax.numpy as jnp
import pytest

from nanochat_jax.config.gpt import GPTConfig, recipe_model_defaults
from nanochat_jax.models.gpt import GPT, init_params
from tests.lowered import text_for_gpu

CFG = GPTConfig(
    sequence_len=64, vocab_size=48, n_layer=2, n_head=2, n_kv_head=2, n_embd=32,
    **recipe_model_defaults("current"),
)  # fmt: skip
IDS = jax.random.randint(jax.random.key(1), (2, 40), 0, 48)


def gradient(remat, attention="blocks"):
    gpt = GPT(CFG, attention=attention, remat=remat)
    return lambda params: jnp.mean(jnp.square(gpt.apply({"params": params}, IDS)[0]))


def params():
    drawn = init_params(CFG, jax.random.key(0))
    return jax.tree.map(lambda p: p + 0.05, drawn)  # no block may be zero at its beginning


@pytest.mark.slow
@pytest.mark.parametrize("remat", ["dots", "full"])
def test_gradients_are_those_of_a_pass_that_keeps_everything(remat):
    kept, again = (jax.jit(jax.grad(gradient(r)))(params()) for r in ("none", remat))
    for a, b in zip(jax.tree.leaves(kept), jax.tree.leaves(again), strict=True):
        assert jnp.linalg.norm(a - b) <= 1e-5 * jnp.linalg.norm(a) + 1e-12


def kept_elements(remat):
    """Elements that the forward pass hands to the backward pass."""
    saved = jax.eval_shape(lambda p: jax.vjp(gradient(remat), p)[1], params())
    return sum(leaf.size for leaf in jax.tree.leaves(saved))


def test_full_keeps_less_than_dots_and_dots_less_than_none():
    assert kept_elements("full") < kept_elements("dots") < kept_elements("none")


def test_attention_is_kept_and_never_computed_again():
    # Only attention multiplies with a batch axis: the products with weights have none.
    text = lambda remat: jax.jit(jax.grad(gradient(remat))).lower(params()).as_text()
    products = {remat: text(remat).count("batching_dims") for remat in ("none", "dots", "full")}
    assert products["none"] > 0 and len(set(products.values())) == 1


# JAX itself has one barrier a block, before what is computed again.
@pytest.mark.parametrize("remat, barriers", [("none", 1), ("dots", 2), ("full", 2)])
def test_a_blocks_gradients_are_all_made_before_the_block_below_begins(remat, barriers):
    # XLA's scheduler leaves what nothing waits for to the end, and until then keeps its inputs: of
    # every block a barrier holds the gradients of the stream and of all matrices.
    text = text_for_gpu(jax.grad(gradient(remat)), params())
    stream, square = "tensor<2x40x32xf32>", "tensor<32x32xf32>"  # of queries, keys, values, output
    found = [
        stream in line and line.count(square) == 4
        for line in text.splitlines()
        if "stablehlo.optimization_barrier" in line
    ]
    assert sum(found) == barriers * CFG.n_layer
