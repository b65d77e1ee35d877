"""A stage takes over what its parent checkpoint was trained with, unless flags or a file differ."""

import dataclasses
import json

import pytest
import tyro

from nanochat_jax import files, pipeline, speedrun
from nanochat_jax.checkpoint import manifest
from nanochat_jax.config import scaling
from nanochat_jax.config.gpt import GPTConfig, recipe_model_defaults
from nanochat_jax.config.paths import CHECKPOINTS
from nanochat_jax.config.resolve import resolve
from nanochat_jax.config.stages import BaseTrain, MidTrain, SFTTrain, recipes_of, rows_per_step
from nanochat_jax.config.values import flatten


@pytest.fixture(autouse=True)
def on_a_cpu(monkeypatch):
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")


def leave(base_dir, stage, cls, recipe="classic", **config):
    """A checkpoint's `meta.json`, without arrays."""
    cfg = GPTConfig(sequence_len=512, vocab_size=300, n_layer=2, n_head=1, n_kv_head=1, n_embd=128)
    cfg = dataclasses.replace(cfg, **recipe_model_defaults(recipe))
    given = {k: v for k, v in {**recipes_of(stage)[recipe], **config}.items()}
    flat = {**flatten(cls()), **given, "recipe": recipe, "depth": 2}
    meta = {"stage": stage, "model_config": dataclasses.asdict(cfg), "config": flat}
    folder = base_dir / CHECKPOINTS[stage] / "d2" / "000007"
    folder.mkdir(parents=True)
    (folder / "meta.json").write_text(json.dumps(meta))
    files.write_json(folder / manifest.NAME, manifest.entries(folder))
    return folder


def settings(stage, *argv, names="max_seq_len device_batch_size total_batch_size"):
    flat = flatten(pipeline.configure(stage, argv))
    return tuple(flat[name] for name in names.split())


def test_rows_rates_and_batch_are_the_checkpoint_s(base_dir):
    given = dict(matrix_lr=0.7, embedding_lr=0.6, unembedding_lr=0.5)
    leave(base_dir, "base", BaseTrain, device_batch_size=3, total_batch_size=3072, **given)
    assert settings("mid") == (512, 3, 3072)
    assert settings("mid", names="matrix_lr embedding_lr unembedding_lr") == (0.7, 0.6, 0.5)


def test_flags_and_a_named_file_win_over_the_checkpoint(base_dir, tmp_path):
    leave(base_dir, "base", BaseTrain, device_batch_size=3, total_batch_size=3072, matrix_lr=0.7)
    path = tmp_path / "mine.toml"
    path.write_text("device_batch_size = 5\n[mid]\nmatrix_lr = 0.1\n")
    names = "max_seq_len device_batch_size total_batch_size matrix_lr"
    got = settings("mid", f"--config={path}", "--max-seq-len=64", names=names)
    assert got == (64, 5, 3072, 0.1)


def test_without_a_checkpoint_the_file_and_the_recipe_stand(base_dir, tmp_path):
    (path := tmp_path / "none.toml").write_text("")
    assert settings("mid", f"--config={path}") == (2048, 32, 524288)
    names = "max_seq_len device_batch_size total_batch_size matrix_lr unembedding_lr load_optimizer"
    current = settings("sft", f"--config={path}", "--recipe=current", names=names)
    assert current == (2048, 32, 524288, 0.02, 0.004, 1)
    names = "device_batch_size target_examples_per_step init_lr_frac load_optimizer"
    assert settings("sft", f"--config={path}", names=names) == (4, 32, 0.02, 0)


def test_the_recipe_is_the_checkpoint_s_and_so_is_what_it_says_of_the_stage(base_dir, tmp_path):
    (path := tmp_path / "none.toml").write_text("")
    leave(base_dir, "mid", MidTrain, recipe="current", total_batch_size=4096, device_batch_size=8)
    names = "recipe source packing muon init_lr_frac max_seq_len device_batch_size total_batch_size"
    got = settings("sft", f"--config={path}", names=names)
    assert got == ("current", "mid", "bestfit", "polar_express", 0.8, 512, 8, 4096)
    assert settings("sft", f"--config={path}", "--recipe=classic", names="recipe") == ("classic",)


def test_rows_of_a_step_that_were_given_are_not_replaced(base_dir, tmp_path):
    leave(base_dir, "mid", MidTrain, total_batch_size=4096)
    (path := tmp_path / "c.toml").write_text("[sft]\npacking = 'bestfit'\n")
    config = pipeline.configure("sft", [f"--config={path}", "--target-examples-per-step=6"])
    assert rows_per_step(config) == 6
    assert rows_per_step(pipeline.configure("sft", [f"--config={path}"])) == 4096 // 512


def test_a_batch_that_the_base_run_derived_is_derived_again(base_dir, tmp_path):
    (path := tmp_path / "none.toml").write_text("")
    leave(base_dir, "base", BaseTrain, recipe="current", aspect_ratio=64, head_dim=128)
    (derived,) = settings("sft", f"--config={path}", "--recipe=current", names="total_batch_size")
    cfg = GPTConfig(sequence_len=512, vocab_size=300, n_layer=2, n_head=1, n_kv_head=1, n_embd=128)
    cfg = dataclasses.replace(cfg, **recipe_model_defaults("current"))
    config = resolve("base", ["--recipe=current", "--depth=2"])
    assert derived == scaling.plan(cfg, config).total_batch_size == 2**16


def test_a_stage_may_begin_at_a_checkpoint_of_its_own_kind(base_dir, tmp_path):
    (path := tmp_path / "none.toml").write_text("[sft]\npacking = 'bestfit'\n")
    folder = leave(base_dir, "sft", SFTTrain, matrix_lr=0.3)
    names = "matrix_lr total_batch_size target_examples_per_step"
    got = settings("sft", f"--config={path}", f"--init={folder}", names=names)
    assert got == (0.3, -1, 32)


def test_the_demo_s_stages_are_what_its_file_says(base_dir):
    before = {stage: flatten(pipeline.configure(stage, [])) for stage in ("mid", "sft")}
    leave(base_dir, "base", BaseTrain, **flatten(pipeline.configure("base", [])))
    meta = json.loads((base_dir / "base_checkpoints/d2/000007/meta.json").read_text())
    meta["model_config"]["sequence_len"] = 256
    (base_dir / "base_checkpoints/d2/000007/meta.json").write_text(json.dumps(meta))
    assert flatten(pipeline.configure("mid", [])) == before["mid"]


@pytest.mark.parametrize("argv", [[], ["--matrix-lr=0.5", "--recipe=current"], ["--init=DIR"]])
@pytest.mark.parametrize("stage", ["mid", "sft", "rl"])
def test_the_flags_of_a_chat_stage_with_a_parent_are_parsed_once(
    stage, argv, base_dir, monkeypatch
):
    folder = leave(base_dir, "base", BaseTrain)
    leave(base_dir, "mid", MidTrain)
    leave(base_dir, "sft", SFTTrain)
    parsed, cli = [], tyro.cli
    monkeypatch.setattr(tyro, "cli", lambda *args, **kw: parsed.append(kw) or cli(*args, **kw))
    typed = [arg.replace("DIR", str(folder)) for arg in argv] + ["--run=mine"]
    assert pipeline.configure(stage, typed).max_seq_len == (512 if stage != "rl" else 256)
    assert len(parsed) == 1


def test_a_flag_that_repeats_the_default_wins_over_the_checkpoint(base_dir):
    leave(base_dir, "base", BaseTrain, device_batch_size=3, matrix_lr=0.7)
    names = "device_batch_size matrix_lr"
    assert settings("mid", "--device-batch-size=2", "--matrix-lr=0.02", names=names) == (2, 0.02)


def test_the_default_file_stands_below_the_checkpoint_but_above_it_in_a_speedrun(base_dir):
    leave(base_dir, "base", BaseTrain, device_batch_size=3)
    assert pipeline.configure("mid").device_batch_size == 3
    whole = pipeline.configure("speedrun")
    assert speedrun.configure("mid", whole).device_batch_size == 2  # configs/cpu.toml


def test_a_resumed_stage_takes_its_own_settings_and_not_its_parent_s(base_dir):
    leave(base_dir, "base", BaseTrain, matrix_lr=0.7)
    leave(base_dir, "mid", MidTrain, matrix_lr=0.3, device_batch_size=6, run="then")
    names = "matrix_lr device_batch_size run resume embedding_lr"
    got = settings("mid", "--resume", "--embedding-lr=0.9", "--run=now", names=names)
    assert got == (0.3, 6, "now", True, 0.9)


def test_the_shape_of_init_wins_over_the_default_file_and_flags_over_both(base_dir):
    folder = leave(base_dir, "base", BaseTrain, aspect_ratio=60)
    names = "depth aspect_ratio max_seq_len matrix_lr"
    assert settings("base", f"--init={folder}", names=names) == (2, 60, 512, 0.02)
    assert settings("base", f"--init={folder}", "--depth=3", names="depth") == (3,)
