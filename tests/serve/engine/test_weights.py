import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nanochat_jax.models import on_cpu
from nanochat_jax.models.linear import Linear
from nanochat_jax.serve.engine import Engine
from nanochat_jax.serve.engine.weights import as_int8, nbytes, prepare, prepare_params
from tests.serve.world import BYTES, random_model

MODEL = random_model("current", n_embd=64)
PROMPTS = [[256, *range(n, n + 12)] for n in range(0, 200, 8)]


def test_an_int8_weight_is_at_most_half_a_level_from_its_own():
    rounded = as_int8(MODEL.params)
    kernel_IO, own_IO = rounded["h_0"]["mlp"]["c_fc"], MODEL.params["h_0"]["mlp"]["c_fc"]["kernel"]
    assert kernel_IO["kernel"].dtype == jnp.int8 and kernel_IO["scale"].shape == (256,)
    error_IO = np.abs(kernel_IO["kernel"] * kernel_IO["scale"][None] - own_IO)
    assert (error_IO <= kernel_IO["scale"][None] * 0.5001).all()
    assert rounded["wte"]["embedding"].dtype == jnp.float32


def test_an_empty_channel_stays_empty():
    params = {"c_q": {"kernel": jnp.zeros((4, 3))}}
    rounded = as_int8(params)["c_q"]
    assert not rounded["kernel"].any() and jnp.isfinite(rounded["scale"]).all()


def test_what_is_int8_already_stays_as_it_is():
    once = as_int8(MODEL.params)
    assert jax.tree.all(jax.tree.map(lambda a, b: (a == b).all(), once, as_int8(once)))


@pytest.mark.slow
def test_int8_logits_are_close_and_greedy_text_mostly_the_same():
    small = prepare(MODEL, int8=True)
    ids_BT = np.array(PROMPTS)
    own_BTV, other_BTV = np.asarray(MODEL(ids_BT)), np.asarray(small(ids_BT))
    assert np.abs(own_BTV - other_BTV).mean() < 0.02 * own_BTV.std()
    whole = Engine(MODEL, BYTES, slots=8).complete(PROMPTS, 8)
    rounded = Engine(MODEL, BYTES, slots=8, int8=True).complete(PROMPTS, 8)
    pairs = zip(whole, rounded, strict=True)
    same = [a == b for own, new in pairs for a, b in zip(own.tokens, new.tokens, strict=False)]
    assert np.mean(same) > 0.8


def test_int8_matrices_take_a_quarter_of_the_bytes_and_nothing_else_changes():
    small = prepare(MODEL, int8=True)
    layer, own = small.params["h_0"]["mlp"], MODEL.params["h_0"]["mlp"]
    assert nbytes(layer) < 0.3 * nbytes(own)
    assert nbytes(small.params["wte"]) == nbytes(MODEL.params["wte"])


@pytest.mark.slow
@pytest.mark.parametrize("recipe", ["classic", "current"])
def test_casting_once_changes_no_logit(recipe):
    model = random_model(recipe)
    late = type(model)(model.gpt.clone(dtype=jnp.bfloat16), model.params)
    early = prepare(late)
    assert early.params["wte"]["embedding"].dtype == jnp.bfloat16
    ids_BT = np.array(PROMPTS)
    np.testing.assert_array_equal(early(ids_BT), late(ids_BT))


def test_new_weights_are_prepared_as_the_first_were():
    engine = Engine(MODEL, BYTES, slots=2, dtype="bfloat16", int8=True)
    before = jax.tree.map(lambda x: x.dtype, engine.pool.params)
    engine.set_params(MODEL.params)
    assert jax.tree.map(lambda x: x.dtype, engine.pool.params) == before


def test_integers_are_no_weights():
    script = jnp.zeros((2, 3), jnp.int32)
    assert prepare_params(script, jnp.bfloat16, False).dtype == jnp.int32


def test_three_matrices_become_one_and_the_logits_stay():
    stored = prepare(MODEL).params["h_0"]["attn"]
    assert "c_q" not in stored and stored["c_qkv"]["packed"].shape == (8, 64, 16)
    own = MODEL.params["h_0"]["attn"]
    parts = np.concatenate([own[name]["kernel"] for name in ("c_q", "c_k", "c_v")], axis=1)
    np.testing.assert_array_equal(stored["c_qkv"]["packed"], on_cpu.pack(parts))
    ids_BT = np.array(PROMPTS)
    np.testing.assert_allclose(prepare(MODEL)(ids_BT), MODEL(ids_BT), atol=2e-5)


@pytest.mark.parametrize("width", [64, 512])
def test_a_row_times_a_turned_matrix_does_not_depend_on_how_many_rows_there_are(width):
    linear = Linear(96, False)
    draw = lambda seed, *shape: jax.random.normal(jax.random.key(seed), shape)
    params, x_ND = {"params": {"turned": draw(0, 96, width)}}, draw(1, 130, width)
    product = jax.jit(lambda x_ND: linear.apply(params, x_ND))
    whole = product(x_ND)
    np.testing.assert_allclose(whole, x_ND @ params["params"]["turned"].T, atol=2e-4)
    for rows in (2, 7, 8, 9, 16, 24, 32, 33, 64, 128):
        np.testing.assert_array_equal(product(x_ND[:rows]), whole[:rows], err_msg=str(rows))
