"""Plans for machines that are not here: what they choose, and that the stages take it."""

import math
import tomllib

import pytest

from nanochat_jax import pipeline, plan
from nanochat_jax.aot.cards import card
from nanochat_jax.config.gpt import flops_per_token
from nanochat_jax.train import base, setup
from scripts import plan as program
from tests.test_guide import parse

T4 = plan.Machine(card("t4-16gb").name, memory=card("t4-16gb").pool)


def test_two_hours_of_a_t4_are_a_model_of_five_layers_in_float32():
    made = plan.plan(T4, 2)
    assert (made.cfg.n_layer, made.parameters, made.batch) == (5, 15138816, 262144)
    # 0.7 of 2 h at 0.4 of 8.1 TFLOP/s, and 94 MFLOP a token.
    tokens = 0.7 * 7200 * 0.4 * 8.1e12 / flops_per_token(made.cfg)
    assert made.base_steps == round(tokens / 262144) and made.shards == 5


@pytest.mark.parametrize("hours", [0.25, 2, 9])
@pytest.mark.parametrize(
    ("name", "devices", "memory"),
    [("Tesla T4", 1, 15e9), ("Tesla T4", 2, 15e9), ("NVIDIA L4", 1, 23e9), ("TPU v5 lite", 8, 16e9),
     ("NVIDIA A100-SXM4-40GB", 1, 40e9), ("NVIDIA L4", 3, 23e9), ("NVIDIA L4", 16, 23e9)],
)  # fmt: skip
def test_a_plan_is_a_config_whose_stages_agree_with_it(
    base_dir, tmp_path, name, devices, memory, hours
):
    machine = plan.Machine(name, devices, memory)
    made = plan.plan(machine, hours)
    (file := tmp_path / "plan.toml").write_text(plan.toml(machine, hours, made))
    parse("speedrun", [f"--config={file}"])
    config = pipeline.configure("base", [f"--config={file}"])
    assert base.model_config(config, made.cfg.vocab_size) == made.cfg
    assert config.recipe == "portable" and config.num_iterations == made.base_steps
    for stage in ("base", "mid"):
        config = pipeline.configure(stage, [f"--config={file}"])
        assert setup.step_tokens(config, made.cfg) == made.batch
        assert made.batch % (made.rows * made.cfg.sequence_len * devices) == 0
    chats = pipeline.configure("sft", [f"--config={file}"])
    assert chats.total_batch_size == -1
    assert chats.target_examples_per_step % (chats.device_batch_size * devices) == 0


def test_more_hours_and_more_devices_are_a_larger_model():
    depths = [plan.plan(T4, hours).cfg.n_layer for hours in (0.1, 1, 4, 16)]
    assert depths == sorted(depths) and depths[0] < depths[-1]
    double = plan.Machine(T4.name, 2, T4.memory)
    assert plan.plan(double, 2).parameters >= plan.plan(T4, 2).parameters
    assert double.flops == 2 * T4.flops


@pytest.mark.parametrize("hours", [0, -1, math.inf, math.nan])
def test_hours_that_are_no_time_are_refused_on_a_cpu_too(tmp_path, capsys, hours):
    file = tmp_path / "plan.toml"
    with pytest.raises(SystemExit) as stop:
        program.main([f"--hours={hours}", f"--file={file}"])
    assert stop.value.code == 2 and not file.exists()
    assert "set it to a time above 0" in capsys.readouterr().err


def test_a_device_that_nobody_knows_is_refused_with_what_to_type():
    with pytest.raises(ValueError, match="no peak is known of 'Abacus'.*configs/gpu-16gb.toml"):
        plan.plan(plan.Machine("Abacus"), 2)


def test_on_a_cpu_the_plan_is_the_demo_and_a_plan_that_is_there_stays(tmp_path, capsys):
    file = tmp_path / "plan.toml"
    assert program.main(["--hours", "2", "--file", str(file)]) == 0
    assert tomllib.loads(file.read_text()) == tomllib.loads(program.ON_A_CPU.read_text())
    file.write_text("depth = 3\n")
    assert program.main([f"--file={file}"]) == 0
    assert file.read_text() == "depth = 3\n" and "stays" in capsys.readouterr().out
