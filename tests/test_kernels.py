"""Which kernels a run uses: what was asked for, what works here, what fits."""

import logging
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import pytest

from nanochat_jax import kernels
from nanochat_jax.config.gpt import GPTConfig

CFG = GPTConfig(
    sequence_len=512, vocab_size=64, n_layer=2, n_head=2, n_kv_head=1, n_embd=32,
    window_pattern="SL",
)  # fmt: skip


def test_a_cpu_attends_in_blocks_and_says_why(caplog):
    with caplog.at_level(logging.INFO):
        assert kernels.choose_attention("auto", CFG, jnp.float32) == "blocks"
    assert "blocks (float32, cpu)" in caplog.text


@pytest.mark.parametrize("name", ["blocks", "xla"])
def test_what_was_asked_for_by_name_is_taken(name):
    assert kernels.choose_attention(name, CFG, jnp.float32) == name


def test_cudnn_asked_for_by_name_where_it_cannot_run_is_refused_with_what_to_type():
    with pytest.raises(ValueError, match="--attention cudnn does not run here.*--attention blocks"):
        kernels.choose_attention("cudnn", CFG, jnp.bfloat16)


def test_on_a_gpu_whose_cudnn_fails_blocks_are_taken_loudly(monkeypatch, caplog):
    monkeypatch.setattr(kernels.jax, "default_backend", lambda: "gpu")
    assert kernels.choose_attention("auto", CFG, jnp.bfloat16) == "blocks"
    assert [r.levelname for r in caplog.records] == ["WARNING"]


def test_a_kernel_with_wrong_numbers_is_found_out(monkeypatch):
    right = kernels.whole_rows
    wrong = lambda attention, q, k, v, *rest: (
        right("blocks", q, k, v, *rest) * (1.1 if attention == "cudnn" else 1.0)
    )
    monkeypatch.setattr(kernels, "whole_rows", wrong)
    assert "off by" in kernels.cudnn_fault(CFG, jnp.float32)
    monkeypatch.setattr(kernels, "whole_rows", lambda a, *rest: right("blocks", *rest))
    assert kernels.cudnn_fault(CFG, jnp.bfloat16) is None


def gpu(capability, kind="NVIDIA"):
    return SimpleNamespace(platform="gpu", device_kind=kind, compute_capability=capability)


@pytest.mark.parametrize("capability", ["8.0", "7.5", "gfx942", ""])
def test_eight_bits_are_refused_where_a_gpu_has_none(capability):
    with pytest.raises(ValueError, match=rf"8\.9 or more.*got NVIDIA \({capability or 'none'}\): "):
        kernels.check_fp8(gpu(capability))


@pytest.mark.parametrize("capability", ["8.9", "9.0", "10.0", "12.1"])
def test_eight_bits_run_on_newer_gpus_without_a_word(capability, caplog):
    kernels.check_fp8(gpu(capability))
    assert not caplog.records


def test_on_a_cpu_eight_bits_are_emulated_and_it_says_so(caplog):
    kernels.check_fp8(jax.devices()[0])
    assert "emulated on this cpu" in caplog.text
