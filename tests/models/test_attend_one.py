"""The kernel that attends with one new token, against the attention it stands for.

On a CPU the kernel is interpreted; the compiler says whether it can be compiled for a GPU.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nanochat_jax.config.gpt import GPTConfig
from nanochat_jax.models import attend_one as module
from nanochat_jax.models import cache as kv
from nanochat_jax.models.attend_one import attend_one
from nanochat_jax.models.attention import attend
from nanochat_jax.models.gpt import GPT, init_params
from nanochat_jax.models.pointwise import rms_norm, rotate
from tests.lowered import text_for_gpu

EPS, SCALE = 1e-6, 1.2


def drawn(B, N, K, H, S, dtype):
    """(heads, tables, past) of random numbers."""
    rng = np.random.default_rng(0)
    normal = lambda *shape: jnp.asarray(rng.normal(size=shape), dtype)
    angle = normal(B, 1, 1, H // 2)
    tables = jnp.cos(angle), jnp.sin(angle)
    return normal(B, N + 2 * K, H), tables, (normal(B, S, K, H), normal(B, S, K, H))


@pytest.mark.slow
@pytest.mark.parametrize("window", [None, 70])
@pytest.mark.parametrize(
    ("heads", "programs", "own_values"),
    [((4, 2), 640, True), ((2, 2), 640, False), ((4, 2), 1, False)],
)
def test_the_kernel_gives_what_attention_gives(monkeypatch, heads, programs, own_values, window):
    monkeypatch.setattr(module, "PROGRAMS", programs)  # with 1 the keys are one part
    S, lengths_B = 200, jnp.asarray([0, 64, 130, 199, 200], jnp.int32)  # the last has no room
    heads_BMH, tables, past = drawn(5, *heads, 16, S, jnp.float32)
    q_BNH, k_BKH, v_BKH = jnp.split(heads_BMH, [heads[0], sum(heads)], axis=1)
    own = {}
    if own_values:
        own["values_BKH"] = v_BKH = 1 + v_BKH
    rotated = lambda x: rms_norm(rotate(x[:, None], tables), EPS) * SCALE
    keys = kv.write(past[0], rotated(k_BKH), lengths_B)
    values = kv.write(past[1], v_BKH[:, None], lengths_B)
    expected = attend(rotated(q_BNH), keys, values, lengths_B[:, None], window)[:, 0]
    scales = dict(window=window, eps=EPS, qk_scale=SCALE)
    out, new = attend_one(heads_BMH, tables, past, lengths_B, **own, **scales, interpret=True)
    np.testing.assert_allclose(out[:4], expected[:4], atol=2e-6)
    np.testing.assert_allclose(new[0], keys, atol=2e-6)
    np.testing.assert_array_equal(new[1], values)


@pytest.mark.slow
def test_rows_without_a_cache_are_none_of_the_kernels():
    cfg = GPTConfig(sequence_len=8, vocab_size=9, n_layer=1, n_head=2, n_kv_head=1, n_embd=8)
    params = init_params(cfg, jax.random.key(0))
    noise = jax.random.normal(jax.random.key(1), params["lm_head"]["kernel"].shape)
    params["lm_head"]["kernel"] = noise  # which is zero at first
    logits = lambda gpt: gpt.apply({"params": params}, jnp.arange(8)[None])[0]
    np.testing.assert_array_equal(logits(GPT(cfg, attention="pallas")), logits(GPT(cfg)))


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float32])
def test_the_kernel_can_be_compiled_for_a_gpu(dtype):
    def run(*arrays):
        return attend_one(*arrays, window=1000, eps=EPS, qk_scale=SCALE)

    arrays = (*drawn(1, 10, 5, 128, 300, dtype), jnp.zeros(1, jnp.int32))
    assert "triton" in text_for_gpu(run, *arrays)
