"""What travels between devices: in which type, how often, and what that does to the numbers."""

from collections import Counter
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend.core import jaxprs_in_params

from nanochat_jax import sharding
from nanochat_jax.config.gpt import GPTConfig
from nanochat_jax.config.stages import BaseTrain
from nanochat_jax.models.gpt import GPT, init_params
from nanochat_jax.train import setup
from nanochat_jax.train.step import compute_copy, gradients
from tests.train.test_step import batch_of, params_of, same, steps

CFG = GPTConfig(n_layer=2, n_embd=32, n_head=2, n_kv_head=2, vocab_size=64, sequence_len=8)
NARROW = GPT(CFG, dtype=jnp.bfloat16)
MATRICES, TABLES = 6 * CFG.n_layer, 2  # six in each block; embedding and output matrix
MESHES = ["4", "data=2,fsdp=2", "data=1,fsdp=4"]


def drawn(cfg=CFG):
    return init_params(cfg, jax.random.key(0))


def rows_of(A, R):
    batch = batch_of(A, R)
    return batch.inputs_ART, batch.targets_ART, np.full((A, R, 8), 1 / 64, np.float32)


def traced(text, A, remat="none", dtype=jnp.bfloat16, model=NARROW):
    """The step's gradient as JAX sees it, of abstract parameters."""
    run = partial(gradients, mesh=sharding.make_mesh(text), reduce_dtype=dtype)
    return jax.make_jaxpr(partial(run, model.clone(remat=remat)))(drawn(), *rows_of(A, 8 // A))


def exchanges(jaxpr, inside=False):
    """(name, type, inside of the loop over micro-batches) of every exchange of large arrays."""
    for eqn in jaxpr.eqns:
        name = eqn.primitive.name
        if name in ("all_gather", "reduce_scatter", "psum", "all_to_all"):
            out = eqn.outvars[0].aval
            if out.size >= 128:
                yield name, str(out.dtype), inside
        for inner in jaxprs_in_params(eqn.params):
            # The tiles of the loss are a loop too, of one turn here, which is none.
            yield from exchanges(inner, inside or name == "scan")


@pytest.mark.parametrize("A", [1, 2])
def test_over_data_weights_and_gradients_travel_once_a_step_in_the_compute_type(A):
    each = MATRICES + TABLES
    want = {("all_gather", "bfloat16", False): each, ("reduce_scatter", "bfloat16", False): each}
    assert Counter(exchanges(traced("4", A).jaxpr)) == want


def test_gradients_are_summed_in_float32_where_asked():
    found = Counter(exchanges(traced("4", 1, dtype=jnp.float32).jaxpr))
    assert found["reduce_scatter", "float32", False] == MATRICES + TABLES
    assert {kind[:2] for kind in found} == {
        ("all_gather", "bfloat16"),
        ("reduce_scatter", "float32"),
    }


@pytest.mark.parametrize("remat", ["none", "dots", "full"])
def test_over_fsdp_a_blocks_weights_come_together_twice_and_are_not_kept(remat):
    found = Counter(exchanges(traced("data=1,fsdp=4", 2, remat).jaxpr))
    assert found == {
        ("all_gather", "bfloat16", True): 2 * MATRICES + TABLES,
        ("reduce_scatter", "bfloat16", True): MATRICES + TABLES,
    }


@pytest.mark.slow
@pytest.mark.parametrize("text", MESHES)
def test_sums_in_bfloat16_are_off_by_no_more_than_their_roundings(text):
    """Each device's part is rounded once, and each of the sums on the way: n + 1 halves of a last
    place of what is added, at most."""
    params, rows = params_of(jax.random.key(1)), rows_of(1, 8)
    mesh, n = sharding.make_mesh(text), 4
    model = GPT(CFG)
    run = lambda *args, **how: jax.jit(partial(gradients, model, **how))(*args)[1]
    params = jax.tree.map(lambda p: p + 0.1, drawn())
    exact = run(params, *rows)
    got = run(params, *rows, mesh=mesh, reduce_dtype=jnp.bfloat16)
    parts = [run(params, *(x[:, i : i + 2] for x in rows)) for i in range(0, 8, 2)]
    size = jax.tree.map(lambda *g: sum(np.abs(x) for x in g), *parts)

    def near(a, b, size):
        assert np.all(np.abs(a - b) <= (n + 1) * 2.0**-9 * size + 1e-6)

    jax.tree.map(near, got, exact, size)
    differs = jax.tree.map(lambda a, b: bool(np.any(np.abs(a - b) > 1e-7)), got, exact)
    assert any(jax.tree.leaves(differs))


@pytest.mark.slow
@pytest.mark.parametrize("text", MESHES)
def test_a_run_with_sums_in_bfloat16_stays_near_the_exact_one(text):
    params, batch = params_of(jax.random.key(0)), batch_of(1, 8)
    mesh = sharding.make_mesh(text)
    exact = steps(params, batch, 2, mesh, n=5)
    narrow = steps(params, batch, 2, mesh, n=5, reduce_dtype=jnp.bfloat16)
    np.testing.assert_allclose(narrow[0], exact[0], rtol=5e-3)


@pytest.mark.slow
@pytest.mark.parametrize("remat", ["dots", "full"])
def test_layers_gathered_and_computed_again_give_the_same_run(remat):
    params, batch = params_of(jax.random.key(0)), batch_of(2, 4)
    model = GPT(GPTConfig(**{**vars(CFG), "n_layer": 1}), remat=remat)
    got = steps(params, batch, 2, sharding.make_mesh("data=1,fsdp=4"), model=model)
    same(got, steps(params, batch, 2))


def test_what_is_measured_is_the_whole_model_in_the_compute_type():
    config = BaseTrain(dtype="bfloat16", device_batch_size=1, num_iterations=1)
    trainer = setup.trainer(config, CFG, sharding.make_mesh("data=2,fsdp=2"), steps=1)
    params = drawn()
    state = trainer.fresh_state(params)
    assert state.params["wte"]["embedding"].addressable_shards[0].data.shape == (16, 32)
    model = trainer.model(state)
    want = compute_copy(params, jnp.bfloat16)
    jax.tree.map(np.testing.assert_array_equal, model.params, want)
    assert all(p.sharding.is_fully_replicated for p in jax.tree.leaves(model.params))
    assert model.params["wte"]["embedding"].dtype == jnp.bfloat16
