"""Our product and our attention on CPUs, against what they stand for, and what they refuse."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nanochat_jax.models import cache as kv
from nanochat_jax.models import on_cpu
from nanochat_jax.models.attention import attend
from nanochat_jax.models.pointwise import rms_norm, rotate

EPS, SCALE = 1e-6, 1.2


def drawn(*shape):
    return np.random.default_rng(len(shape) + sum(shape)).normal(size=shape).astype(np.float32)


@pytest.mark.parametrize("int8", [False, True])
@pytest.mark.parametrize(("rows", "depth", "outputs"), [(1, 40, 100), (5, 129, 33), (70, 8, 16)])
def test_a_product_is_that_of_float64(rows, depth, outputs, int8):
    x_NI, W_IO, scales = drawn(rows, depth), drawn(depth, outputs), ()
    if int8:
        W_IO, scales = np.asarray(40 * W_IO, np.int8), (np.abs(drawn(outputs)),)
    y_NO = on_cpu.product(x_NI, on_cpu.pack(jnp.asarray(W_IO)), outputs, *scales)
    expected = x_NI.astype(np.float64) @ W_IO * (scales or (1.0,))[0]
    np.testing.assert_allclose(y_NO, expected, atol=1e-6 * depth * np.abs(W_IO).max())


def test_a_row_of_a_product_does_not_depend_on_the_others_nor_on_threads():
    x_NI, packed = drawn(130, 512), on_cpu.pack(jnp.asarray(drawn(512, 600)))
    whole = on_cpu.product(x_NI, packed, 600)  # in pieces: a row alone is small enough for one
    for rows in (1, 2, 7, 8, 9, 32, 61, 128):
        part = on_cpu.product(x_NI[:rows], packed, 600)
        np.testing.assert_array_equal(part, whole[:rows], err_msg=str(rows))


def test_a_product_of_other_shapes_is_refused():
    with pytest.raises(Exception, match=r"x \[2, 7\] times \[2, 8, 16\] is not \[2, 20\]"):
        on_cpu.product(drawn(2, 7), on_cpu.pack(jnp.asarray(drawn(8, 20))), 20).block_until_ready()


@pytest.mark.parametrize("window", [None, 70])
@pytest.mark.parametrize(("heads", "own_values"), [((4, 2), True), ((2, 2), False)])
def test_attention_of_one_token_gives_what_attention_gives(heads, own_values, window):
    (N, K), H, S = heads, 64, 200  # wide enough for several threads
    lengths_B = jnp.asarray([0, 64, 130, 199, 200], jnp.int32)  # the last has no room
    heads_BMH, angle = drawn(5, N + 2 * K, H), drawn(5, 1, 1, H // 2)
    tables, past = (np.cos(angle), np.sin(angle)), (drawn(5, S, K, H), drawn(5, S, K, H) + 1)
    q_BNH, k_BKH, v_BKH = jnp.split(heads_BMH, [N, N + K], axis=1)
    own = {}
    if own_values:
        own["values_BKH"] = v_BKH = 1 + v_BKH
    rotated = lambda x: rms_norm(rotate(x[:, None], tables), EPS) * SCALE
    keys = kv.write(jnp.asarray(past[0]), rotated(k_BKH), lengths_B)
    values = kv.write(jnp.asarray(past[1]), v_BKH[:, None], lengths_B)
    expected = attend(rotated(q_BNH), keys, values, lengths_B[:, None], window)[:, 0]
    scales = dict(window=window, eps=EPS, qk_scale=SCALE)
    out, new = on_cpu.attend_one(heads_BMH, tables, past, lengths_B, **own, **scales)
    np.testing.assert_allclose(out, expected, atol=2e-6)
    np.testing.assert_allclose(new[0], keys, atol=2e-6)
    np.testing.assert_array_equal(new[1], values)


def test_lengths_of_other_rows_are_refused():
    past, tables = (drawn(1, 4, 1, 32),) * 2, (drawn(1, 1, 1, 16),) * 2
    scales = dict(window=None, eps=EPS, qk_scale=SCALE)
    longer = jnp.zeros(2, jnp.int32)
    with pytest.raises(Exception, match=r"lengths \[2\].* do not fit"):
        jax.block_until_ready(on_cpu.attend_one(drawn(1, 3, 32), tables, past, longer, **scales))


def test_an_extension_of_before_there_were_any_says_what_to_type(monkeypatch):
    on_cpu._known.cache_clear()
    monkeypatch.setattr(on_cpu.ctypes, "CDLL", lambda path: object())
    with pytest.raises(RuntimeError, match="make setup"):
        on_cpu._known()


def test_scores_far_apart_overflow_nowhere():
    heads_BMH = jnp.zeros((1, 3, 16)).at[:, 0, 0].set(1.0)
    keys_BSKH = jnp.zeros((1, 9, 1, 16)).at[0, :8, 0, 0].set(jnp.linspace(-1e4, 1e4, 8))
    tables = jnp.ones((1, 1, 1, 8)), jnp.zeros((1, 1, 1, 8))
    values_BSKH = jnp.arange(9.0)[None, :, None, None] * jnp.ones((1, 1, 1, 16))
    length_B = jnp.asarray([8], jnp.int32)
    scales = dict(window=None, eps=EPS, qk_scale=1.0)
    out, _ = on_cpu.attend_one(heads_BMH, tables, (keys_BSKH, values_BSKH), length_B, **scales)
    np.testing.assert_array_equal(out, 7.0)  # all the weight is the last key's


def test_attention_with_heads_of_an_odd_width_is_refused():
    past = (drawn(1, 4, 1, 24),) * 2
    tables = (drawn(1, 1, 1, 12),) * 2
    scales = dict(window=None, eps=EPS, qk_scale=SCALE)
    with pytest.raises(Exception, match="heads of 24: no multiple of 16"):
        out, _ = on_cpu.attend_one(drawn(1, 3, 24), tables, past, jnp.zeros(1, jnp.int32), **scales)
        jax.block_until_ready(out)
