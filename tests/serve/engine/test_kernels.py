"""Our kernels are tried before they are used; where they fail XLA decodes, and that is told.

On a CPU those for GPUs cannot be compiled: that is the failure. Interpreted they come out right.
"""

import logging
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nanochat_jax.models import attend_one, on_cpu
from nanochat_jax.serve.engine import Engine, draw_kernel, kernels
from nanochat_jax.serve.engine.sampling import sample
from tests.serve.world import BYTES, random_model

MODEL = random_model(n_embd=64)
CFG = MODEL.cfg


@pytest.fixture(autouse=True)
def nothing_tried_yet():
    yield
    kernels.attention_fault.cache_clear()
    kernels.draw_fault.cache_clear()
    kernels.product_fault.cache_clear()
    kernels._tell.cache_clear()


def test_kernels_that_fail_are_replaced_by_xla_and_it_is_told(monkeypatch, caplog):
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    with caplog.at_level(logging.WARNING):
        assert kernels.choose_sample() is sample
        assert kernels.choose_attention(CFG, jnp.float32) == "xla"
    assert caplog.text.count("SLOW DECODING") == 2 and "interpret mode" in caplog.text


def test_a_kernel_that_draws_other_tokens_is_found_out(monkeypatch):
    first = lambda logits_BV, *_: jnp.argmax(logits_BV, axis=-1)
    monkeypatch.setattr(draw_kernel, "draw", first)
    assert "tokens are not those" in kernels.draw_fault()


def test_a_kernel_with_wrong_numbers_is_found_out(monkeypatch):
    def halved(heads_BMH, tables, past, length_B, **_):
        return heads_BMH[:, : CFG.n_head] / 2, past

    monkeypatch.setattr(attend_one, "attend_one", halved)
    assert "off by" in kernels.attention_fault(CFG, jnp.float32, "pallas")


def test_on_a_cpu_in_float32_decoding_goes_through_ours(caplog):
    with caplog.at_level(logging.DEBUG):
        assert kernels.choose_attention(CFG, jnp.float32) == "rust"
        assert kernels.choose_product(jnp.float32) == "packed"
    assert caplog.text.count("our kernel (tried on a small case)") == 2
    assert kernels.choose_attention(CFG, jnp.bfloat16) == "xla"
    assert kernels.choose_product(jnp.bfloat16) == "turned"


def test_wrong_numbers_on_a_cpu_are_found_out(monkeypatch, caplog):
    wrong = lambda x_NI, packed, outputs, *_: jnp.zeros((len(x_NI), outputs))
    monkeypatch.setattr(on_cpu, "product", wrong)
    monkeypatch.setattr(on_cpu, "attend_one", lambda heads, t, past, *_, **__: (heads[:, :2], past))
    with caplog.at_level(logging.WARNING):
        assert kernels.choose_product(jnp.float32) == "turned"
        assert kernels.choose_attention(CFG, jnp.float32) == "xla"
    assert caplog.text.count("SLOW DECODING") == 2 and caplog.text.count("off by") == 2


@pytest.mark.parametrize(("recipe", "int8"), [("classic", False), ("current", True)])
def test_replies_are_those_of_xla(monkeypatch, recipe, int8):
    model, prompts = random_model(recipe, n_embd=64), [[5, 6, 7], [9] * 20]
    replies = lambda: Engine(model, BYTES, slots=2, int8=int8).complete(prompts, 24)
    ours = replies()
    monkeypatch.setattr(kernels, "_on_cpu", lambda dtype: False)
    for reply, own in zip(replies(), ours, strict=True):
        assert reply.tokens == own.tokens
        np.testing.assert_allclose(reply.logprobs, own.logprobs, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_kernel_of_attention_passes_where_it_runs(monkeypatch, dtype):
    run = partial(attend_one.attend_one, interpret=True)
    monkeypatch.setattr(attend_one, "attend_one", run)
    for recipe in ("classic", "current"):
        cfg = random_model(recipe, n_embd=64).cfg
        assert kernels.attention_fault(cfg, jnp.dtype(dtype), "pallas") is None


@pytest.mark.slow
def test_the_kernel_that_draws_passes_where_it_runs(monkeypatch):
    monkeypatch.setattr(draw_kernel, "draw", partial(draw_kernel.draw, interpret=True))
    assert kernels.draw_fault() is None
