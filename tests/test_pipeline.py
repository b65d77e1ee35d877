"""The whole chain through its commands, and what wrong input gets."""

import json
import os
import pathlib
import subprocess
import sys
from dataclasses import asdict

import pytest

from nanochat_jax import pipeline, speedrun
from nanochat_jax.config import paths, scaling
from nanochat_jax.config.gpt import GPTConfig
from nanochat_jax.config.program import Speedrun
from nanochat_jax.config.saving import Cadence
from nanochat_jax.config.stages import STAGES, BaseTrain, TokenizerTrain
from nanochat_jax.config.values import flatten
from nanochat_jax.train import base, stages
from scripts import train as train_program

ROOT = pathlib.Path(__file__).resolve().parents[1]
TINY = """
embedded_world = true
device_batch_size = 2
max_seq_len = 96
total_batch_size = 384
[tokenizer]
vocab_size = 300
max_chars = 20000
[base]
depth = 1
aspect_ratio = 16
head_dim = 16
num_iterations = 4
eval_every = 2
eval_tokens = 256
sample_every = -1
save_every = 2
[mid]
num_iterations = 3
eval_every = 2
eval_tokens = 256
sample_every = -1
mixture = ["conversations:200", "documents:50"]
val_mixture = ["conversations:20"]
[sft]
num_iterations = 3
target_examples_per_step = 4
packing = "bestfit"
eval_every = 2
eval_steps = 2
eval_metrics_every = -1
sample_every = -1
mixture = ["conversations:200"]
val_mixture = ["conversations:20"]
[rl]
num_iterations = 2
examples_per_step = 2
num_samples = 2
max_new_tokens = 8
eval_every = 2
eval_examples = 2
eval_samples = 2
sample_every = -1
mixture = ["exchanges:sums"]
val_mixture = ["exchanges:sums"]
[eval]
tasks = "bpb"
split_tokens = 256
device_batch_size = 2
[speedrun]
download = 0
"""


@pytest.fixture
def tiny(tmp_path):
    path = tmp_path / "tiny.toml"
    path.write_text(TINY)
    return path


def program(base, *argv, **kw):
    """A program in a process of its own, on one CPU device."""
    env = os.environ | {
        "NANOCHAT_BASE_DIR": str(base),
        "JAX_PLATFORMS": "cpu",
        "PYTHONPATH": str(ROOT),
    }
    command = [sys.executable, "-m", *map(str, argv)]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=280, **kw)
    return done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        ([], "no stage given"),
        (["--stage", "bass"], "did you mean 'base'"),
        (["--stage", "base", "--detph=3"], "did you mean --depth"),
        (["--stage", "base", "--config=nowhere.toml"], "no config file"),
        (["--stage", "mid"], "python -m scripts.train --stage base"),
        (["--stage", "base", "--device-type=mps"], "what works on a Mac"),
        (["--stage", "base", "--no-embedded-world"], "scripts.data"),
        (["--stage", "base", "--resume"], "no checkpoint"),
    ],
)
def test_wrong_input_says_what_to_type(argv, said, base_dir, capsys, monkeypatch):
    monkeypatch.setattr(pipeline, "prepare_devices", _checked_kind)
    with pytest.raises(SystemExit) as stop:
        train_program.main(argv)
    assert stop.value.code == 2
    assert said in capsys.readouterr().err


def _checked_kind(config):
    from nanochat_jax import devices

    return devices.resolve_kind(config.device_type)


@pytest.mark.slow
def test_a_base_run_without_a_tokenizer_names_the_command(base_dir, capsys, monkeypatch):
    monkeypatch.setattr(pipeline, "prepare_devices", _checked_kind)
    with pytest.raises(SystemExit):
        train_program.main(["--stage", "base"])
    assert "--stage tokenizer" in capsys.readouterr().err


@pytest.mark.slow
def test_a_batch_that_does_not_divide_says_what_would(base_dir, tiny, capsys, monkeypatch):
    monkeypatch.setattr(pipeline, "prepare_devices", _checked_kind)
    assert train_program.main(["--stage", "tokenizer", f"--config={tiny}"]) == 0
    with pytest.raises(SystemExit):
        train_program.main(
            ["--stage", "base", f"--config={tiny}", "--mesh=1", "--device-batch-size=3"]
        )
    assert "set --device-batch-size to one of 1, 2, 4" in capsys.readouterr().err


def test_two_fingerprints_are_compared_key_by_key():
    differ = speedrun.differences({"a": 1, "b": 2, "same": 3}, {"a": 1, "b": 5, "same": 3})
    assert differ == "b: was 2, now 5"


def test_every_stage_of_the_demo_can_be_configured(monkeypatch):
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    assert pipeline.configure("base", []).depth == 4
    assert isinstance(pipeline.configure("tokenizer", []), TokenizerTrain)
    monkeypatch.setenv("JAX_PLATFORMS", "cuda")
    guide = pipeline.configure("base", [])
    assert isinstance(guide, BaseTrain) and guide.depth == 20


def test_the_stage_name_may_stand_anywhere():
    assert pipeline.split_stage(["--depth=3", "--stage=base"]) == ("base", ["--depth=3"])
    assert pipeline.split_stage(["--stage", "sft", "--resume"]) == ("sft", ["--resume"])


def test_the_d20_run_is_the_guide_s():
    config = pipeline.configure("base", [f"--config={ROOT / 'configs' / 'd20.toml'}"])
    assert (config.depth, config.total_batch_size, config.target_param_data_ratio) == (
        20, 524288, 20.0,
    )  # fmt: skip


@pytest.mark.parametrize(
    "name", ["d20", "d26", "d32", "speedrun24", *(f"gpu-{n}gb" for n in (8, 12, 16, 24, 48))]
)
def test_a_config_for_gpus_saves_on_the_way_and_downloads_what_it_will_read(name):
    file = f"--config={ROOT / 'configs' / name}.toml"
    config, chain = (pipeline.configure(s, [file]) for s in ("base", "speedrun"))
    tokenizer = pipeline.configure("tokenizer", [file])
    cfg = base.model_config(config, tokenizer.vocab_size)
    plan = scaling.plan(cfg, config)
    assert Cadence.of(config.save_every).seconds == 900
    assert 0 < tokenizer.num_shards < chain.download
    # A shard holds 250 million characters, a token of text about 4.8, and of what is read best-fit
    # packing crops about 35 % (nanochat's README and dev/LOG.md).
    kept = 0.65 if config.loader == "bestfit" else 1.0
    shards = plan.total_tokens * 4.8 / kept / 250e6
    assert shards < chain.download < 1.6 * shards + 8


def test_what_all_stages_share_reaches_each_from_the_speedrun(base_dir):
    config = Speedrun(task_data="rows", mesh="2", config=str(ROOT / "configs" / "cpu-text.toml"))
    for stage in ("mid", "sft", "rl", "eval"):
        shared = speedrun.configure(stage, config)
        assert (shared.task_data, shared.mesh) == ("rows", "2")
    assert speedrun.configure("base", config).mesh == "2"


def handed(*argv):
    """Stage -> its config in a speedrun with these flags."""
    layers = pipeline.layers_of("speedrun", argv)
    stages = ("base", "mid", "sft", "rl", "eval")
    return {s: speedrun.configure(s, layers.config(), layers.handed_on()) for s in stages}


def test_a_speedrun_beside_a_deeper_model_is_of_its_own_from_stage_to_stage(base_dir, tmp_path):
    def made(depth, stage="base"):
        path = base_dir / paths.CHECKPOINTS[stage] / f"d{depth}" / "000001"
        path.mkdir(parents=True)
        config = flatten(STAGES[stage](**({"depth": depth} if stage == "base" else {})))
        meta = {"config": config, "model_config": asdict(GPTConfig(n_layer=depth))}
        (path / "meta.json").write_text(json.dumps(meta))

    (tmp_path / "c.toml").write_text("[base]\ndepth = 4\n")
    file = f"--config={tmp_path / 'c.toml'}"
    tags = lambda *argv: [config.model_tag for config in handed(file, *argv).values()]
    made(4)
    assert tags() == [""] * 5
    made(20, "sft")
    assert tags() == ["", *["d4"] * 4]
    made(20)
    assert tags() == ["", *["d4"] * 4] and tags("-g=my") == ["my"] * 5
    assert speedrun.folder_of("mid", handed(file)["mid"], base_dir).name == "d4"


def test_a_typed_tag_makes_no_finished_stage_another(monkeypatch):
    have = {"depth": 4, "model_tag": ""}
    monkeypatch.setattr(
        "nanochat_jax.train.stages.status", lambda *_: (have | {"model_tag": "d4"}, have, True)
    )
    assert not speedrun._stage("base", None, False, {})


def test_the_flags_of_memory_are_every_stage_s_where_they_are_typed(tmp_path, base_dir):
    table = "[base]\nfp8 = true\nremat = 'dots'\n[sft]\nremat = 'none'\n[rl]\nremat = 'none'\n"
    (tmp_path / "c.toml").write_text(f"device_batch_size = 8\n{table}")
    file = f"--config={tmp_path / 'c.toml'}"
    stages = handed(file)
    rows = [config.device_batch_size for config in stages.values()]
    assert rows == [8, 8, 8, 8, 8] and stages["base"].fp8
    assert [stages[s].remat for s in ("base", "mid", "sft")] == ["dots", "auto", "none"]
    typed = ["--remat=full", "--reduce-dtype=float32"]
    stages = handed(file, "--device-batch-size=16", *typed, "--attention=xla", "--no-fp8")
    assert [config.device_batch_size for config in stages.values()] == [16, 16, 8, 8, 8]
    assert not stages["base"].fp8
    trained = [stages[s] for s in ("base", "mid", "sft", "rl")]
    assert {(config.remat, config.attention) for config in trained} == {("full", "xla")}
    assert {config.reduce_dtype for config in trained} == {"float32"}
    stages = handed(file, "--device-batch-size=2")
    assert {config.device_batch_size for config in stages.values()} == {2}


def test_the_speedrun_s_own_table_hands_on_too_and_stages_count_their_own_rows(tmp_path, base_dir):
    (tmp_path / "c.toml").write_text("[speedrun]\ndevice_batch_size = 16\n")
    stages = handed(f"--config={tmp_path / 'c.toml'}")
    rows = {stage: config.device_batch_size for stage, config in stages.items()}
    assert rows == {"base": 16, "mid": 16, "sft": 4, "rl": 8, "eval": 16}


def test_a_smaller_batch_in_a_speedrun_keeps_the_stages_that_are_done(monkeypatch):
    done = {"seed": 1, "device_batch_size": 32}
    status = lambda want: monkeypatch.setattr(stages, "status", lambda *_: (want, done, True))
    status(done | {"device_batch_size": 8})
    assert not speedrun._stage("base", None, False, {"device_batch_size": 8})
    with pytest.raises(ValueError, match="device_batch_size: was 32, now 8"):
        speedrun._stage("base", None, False, {})
    status(done | {"device_batch_size": 8, "seed": 2})
    with pytest.raises(ValueError, match="other settings: seed: was 1, now 2;"):
        speedrun._stage("base", None, False, {"device_batch_size": 8})


def test_a_missing_folder_of_task_files_is_named_before_anything_is_trained(base_dir):
    with pytest.raises(FileNotFoundError, match="--task-data nowhere is no folder"):
        speedrun.run(["--task-data=nowhere"])
    assert not any(base_dir.iterdir())


def test_an_evaluation_that_fails_costs_a_speedrun_none_of_its_stages(base_dir, caplog):
    config = pipeline.configure("eval", ["-i", "base"])
    assert speedrun._evaluate("base", config, ran=True, strict=False) == 1
    assert "the evaluation of stage base failed" in caplog.text and "--strict" in caplog.text
    assert "Traceback" in (base_dir / "report" / "failures.log").read_text()
    with pytest.raises(FileNotFoundError, match="no checkpoint"):
        speedrun._evaluate("base", config, ran=True, strict=True)


@pytest.mark.parametrize(
    ("argv", "said"), [("--device-batch-size=3", "does not divide"), ("--run=x", "wandb")]
)
def test_a_speedrun_that_is_refused_replaces_and_fetches_nothing(
    argv, said, base_dir, tiny, monkeypatch
):
    monkeypatch.setattr(pipeline, "prepare_devices", lambda config: "cpu")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ValueError, match=said):
        speedrun.run([f"--config={tiny}", "--mesh=1", "--fresh", argv])
    assert not list(base_dir.rglob("*"))


def test_how_a_speedrun_saves_reaches_every_stage(base_dir):
    layers = pipeline.layers_of("speedrun", ["--save-every=90s", "--keep", "all"])
    for stage in ("base", "mid", "sft", "rl"):
        made = speedrun.configure(stage, layers.config(), layers.handed_on())
        assert (made.save_every, made.keep) == ("90s", "all")
    assert speedrun.configure("base", pipeline.configure("speedrun", [])).save_every == "15m"
