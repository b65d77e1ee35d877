"""`scripts.roofline`: what it prints of a step, and what it says where it cannot."""

import json

import pytest

from nanochat_jax.aot import command, programs, target
from nanochat_jax.aot.cards import card
from nanochat_jax.aot.programs import Program
from nanochat_jax.config.gpt import flops_per_token
from tests.aot.hlo_texts import module

GPU = card("h100-80gb")
CONFIG, CFG = programs.settled("base", ["--depth=4"])
PROGRAM = Program(module(), 7 * 10**9, 0.0, 524288)


def test_speed_and_mfu_follow_from_the_time_of_all_devices():
    found = command.figures(PROGRAM, CONFIG, CFG, GPU, devices=8)
    assert found["tokens_per_s"] == pytest.approx(524288 / (found["step_ms"] / 1e3))
    peak = 8 * GPU.flops
    assert found["mfu"] == pytest.approx(100 * flops_per_token(CFG) * found["tokens_per_s"] / peak)
    launches = {kernel["bound"]: kernel["launches"] for kernel in found["kernels"]}
    assert launches == {"exchange": 1, "start": 4} and found["sent_gb"] == pytest.approx(1.792e-6)
    assert json.loads(json.dumps(found))["peak_gb"] == 7.0


def test_the_text_names_its_assumptions_and_that_nothing_was_measured():
    text = command.text(command.figures(PROGRAM, CONFIG, CFG, GPU, devices=8))
    assert "8 x NVIDIA H100 80GB HBM3: compiled, not measured" in text
    assert "7.0 GB of a pool of 77.8" in text and "products 0.7" in text


@pytest.mark.parametrize(
    ("argv", "told"),
    [(["--device", "h10"], "h100-80gb"), (["--stage", "tokeniser"], "--stage is 'tokeniser'")],
)
def test_a_name_that_nobody_has_is_refused(argv, told):
    with pytest.raises(ValueError, match=told):
        command.run(argv)


def test_without_the_compiler_it_says_how_to_get_one(monkeypatch):
    monkeypatch.setattr(target, "has_cuda_plugin", lambda: False)
    with pytest.raises(ValueError, match="make test-gpu"):
        command.run(["--depth=4"])


def test_the_model_of_a_chat_stage_is_that_of_its_file():
    _, cfg = programs.settled("sft", ["--config=configs/d26.toml", "--device-batch-size=4"])
    assert (cfg.n_layer, cfg.vocab_size) == (26, 65536)
    _, cfg = programs.settled("sft", ["--config=configs/speedrun24.toml"])
    assert (cfg.vocab_size, cfg.value_embeds) == (32768, True)
