"""The type that models compute in, by what the device can multiply."""

import logging
from types import SimpleNamespace

import jax
import pytest

from nanochat_jax import devices


def device(platform, capability=None, kind="Tesla T4"):
    return SimpleNamespace(platform=platform, compute_capability=capability, device_kind=kind)


@pytest.mark.parametrize(
    ("platform", "capability", "expected"),
    [
        ("cpu", None, "float32"),
        ("gpu", "6.0", "float32"),
        ("gpu", "7.5", "float32"),
        ("gpu", "8.0", "bfloat16"),
        ("gpu", "12.1", "bfloat16"),
        ("gpu", "gfx942", "bfloat16"),
        ("tpu", None, "bfloat16"),
    ],
)
def test_bfloat16_is_taken_where_a_device_multiplies_in_it(platform, capability, expected):
    assert devices.automatic_dtype(device(platform, capability)) == expected


def test_a_tpu_has_no_compute_capability_at_all():
    assert devices.automatic_dtype(SimpleNamespace(platform="tpu")) == "bfloat16"


@pytest.mark.parametrize(
    ("asked", "got", "level", "said"),
    [
        ("auto", "float32", "INFO", "computing in float32: Tesla T4 (compute capability 7.5)"),
        ("bfloat16", "bfloat16", "WARNING", "leave --dtype out"),
        ("float32", "float32", None, None),
    ],
)
def test_a_gpu_without_bfloat16_says_so_once(monkeypatch, caplog, asked, got, level, said):
    monkeypatch.setattr(jax, "local_devices", lambda: [device("gpu", "7.5")])
    devices._tell_of_no_bfloat16.cache_clear()
    with caplog.at_level(logging.INFO):
        assert {devices.compute_dtype(asked).name for _ in range(3)} == {got}
    assert [r.levelname for r in caplog.records] == ([level] if level else [])
    assert said is None or said in caplog.text


def test_a_cpu_computes_in_float32_without_a_word(caplog):
    with caplog.at_level(logging.INFO):
        assert devices.compute_dtype().name == "float32"
    assert not caplog.records
