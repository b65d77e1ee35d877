"""The mesh texts users type, and where the table puts things."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P

from nanochat_jax import sharding

TREE = {
    "params": {
        "wte": {"embedding": jnp.zeros((64, 32))},
        "h_0": {"attn": {"c_q": {"kernel": jnp.zeros((32, 32))}}},
        "odd": {"kernel": jnp.zeros((33, 64))},
        "resid_lambdas": jnp.zeros(4),
    },
    "opt_state": {
        "step": jnp.zeros((), jnp.int32),
        "adam": {"exp_avg": {"wte": {"embedding": jnp.zeros((64, 32))}}},
        "muon": {
            "momentum_buffer": {"h_0": {"attn": {"c_q": {"kernel": jnp.zeros((32, 32))}}}},
            "second_momentum_buffer": {"h_0": {"attn": {"c_q": {"kernel": jnp.zeros((1, 32))}}}},
        },
    },
}


def specs(mesh) -> dict:
    return jax.tree.map(lambda s: s.spec, sharding.shardings(mesh, TREE))


@pytest.mark.parametrize(
    ("text", "want"),
    [
        ("8", (8, 1)),
        ("data=4,fsdp=2", (4, 2)),
        ("fsdp=2,data=3", (3, 2)),
        ("fsdp=8", (1, 8)),
        (None, (8, 1)),
        ("", (8, 1)),
        (" data = 2 ", (2, 1)),
    ],
)
def test_a_mesh_text_gives_the_sizes_of_the_axes(text, want):
    assert tuple(sharding.mesh_axes(text, 8).values()) == want


@pytest.mark.parametrize("text", ["model=2", "data=", "0", "-1", "two", "2;2", "2,", "=", "2,4"])
def test_a_mesh_text_of_another_form_is_an_error_that_shows_both_forms(text):
    with pytest.raises(ValueError, match=r"such as 8.*data=4,fsdp=2"):
        sharding.mesh_axes(text, 8)


@given(data=st.integers(1, 64), fsdp=st.integers(1, 64), have=st.integers(1, 64))
def test_a_mesh_larger_than_the_machine_is_an_error_that_names_both(data, fsdp, have):
    text = f"data={data},fsdp={fsdp}"
    if data * fsdp <= have:
        assert sharding.mesh_axes(text, have) == {"data": data, "fsdp": fsdp}
        return
    with pytest.raises(ValueError, match=f"needs {data * fsdp} devices, this machine has {have}"):
        sharding.mesh_axes(text, have)


def test_a_mesh_has_both_axes_and_leaves_sharding_to_the_compiler():
    mesh = sharding.make_mesh("data=2,fsdp=2")
    assert mesh.shape == {"data": 2, "fsdp": 2}
    assert mesh.axis_types == (AxisType.Auto, AxisType.Auto)
    assert sharding.make_mesh(None).size == jax.device_count()


@pytest.mark.parametrize("text", ["4", "data=2,fsdp=2", "fsdp=4"])
def test_matrices_and_their_moments_are_split_over_both_axes_where_these_divide_them(text):
    got = specs(sharding.make_mesh(text))
    both = P(("fsdp", "data"))
    assert got["params"]["wte"]["embedding"] == both
    assert got["params"]["h_0"]["attn"]["c_q"]["kernel"] == both
    assert got["params"]["odd"]["kernel"] == P()
    assert got["opt_state"]["adam"]["exp_avg"]["wte"]["embedding"] == both
    assert got["opt_state"]["muon"]["momentum_buffer"]["h_0"]["attn"]["c_q"]["kernel"] == both


def test_small_arrays_and_scalars_stay_whole():
    got = specs(sharding.make_mesh("data=2,fsdp=2"))
    assert got["params"]["resid_lambdas"] == P()
    assert got["opt_state"]["step"] == P()
    assert jax.tree.leaves(got["opt_state"]["muon"]["second_momentum_buffer"]) == [P()]


def test_one_device_keeps_everything_whole():
    assert set(jax.tree.leaves(specs(sharding.make_mesh("1")))) == {P()}


def test_shapes_without_arrays_are_placed_the_same():
    mesh = sharding.make_mesh("data=2,fsdp=2")
    abstract = jax.eval_shape(lambda: TREE)
    assert sharding.shardings(mesh, abstract) == sharding.shardings(mesh, TREE)


def test_a_batch_is_split_by_rows():
    mesh = sharding.make_mesh("4")
    rows = np.arange(2 * 8 * 3).reshape(2, 8, 3)
    placed = jax.device_put(rows, sharding.batch_sharding(mesh))
    assert {s.data.shape for s in placed.addressable_shards} == {(2, 2, 3)}
    flat = jax.device_put(rows[0], sharding.batch_sharding(mesh, ndim=2))
    assert {s.data.shape for s in flat.addressable_shards} == {(2, 3)}
    whole = jax.device_put(rows, sharding.replicated(mesh))
    assert {s.data.shape for s in whole.addressable_shards} == {(2, 8, 3)}
