"""From text to a chat model on real rows: both recipes' own mixtures, stage after stage."""

import json

import numpy as np
import pytest

from nanochat_jax import pipeline, tasks
from nanochat_jax.checkpoint import find_checkpoint, load_model
from nanochat_jax.config.paths import base_dir as config_base_dir
from nanochat_jax.data import importer
from nanochat_jax.serve.engine import Engine
from nanochat_jax.train import metrics
from tests.tasks.made_files import write_task_files

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
NO_FILE = "sample_every = -1\n"  # instead of the demo's settings
TINY = [
    "--depth=2", "--aspect-ratio=16", "--head-dim=32", "--device-batch-size=2", "--mesh=1",
    "--max-seq-len=192", "--total-batch-size=768", "--num-iterations=3", "--eval-every=-1",
]  # fmt: skip
FEW = ["--mesh=1", "--num-iterations=4", "--eval-every=4"]
FEW_SCORES = ["--eval-metrics-max-problems=6", "--chatcore-max-sample=2"]


@pytest.fixture(scope="module")
def task_data(tmp_path_factory):
    return write_task_files(tmp_path_factory.mktemp("task_data"))


@pytest.fixture
def base(base_dir, task_data, tmp_path):
    """Makes a tokenizer and a tiny base model of a recipe; gives the flags of what comes after."""
    rows = tasks.build_one("GSM8K:600", base_dir, "train", task_data=str(task_data))
    texts = (row["messages"][0]["content"] for row in rows)
    lines = (json.dumps({"text": text}) + "\n" for text in texts)
    (tmp_path / "text.jsonl").write_text("".join(lines))
    importer.add_documents(base_dir, [tmp_path / "text.jsonl"])
    (tmp_path / "c.toml").write_text(NO_FILE)

    def make(recipe):
        flags = [f"--config={tmp_path / 'c.toml'}", f"--recipe={recipe}"]
        run("tokenizer", flags[0], "--vocab-size=320")
        run("base", *flags, *TINY)
        return flags

    return make


def run(stage, *argv):
    pipeline.run(stage, pipeline.configure(stage, argv))


def losses(base_dir, folder):
    """Of each step; every loss and every evaluation is a number."""
    lines = metrics.read(base_dir / folder / "d2" / "metrics.jsonl")
    found = [line["train/loss"] for line in lines if "train/loss" in line]
    scored = [line["val/bpb"] for line in lines if "val/bpb" in line]
    assert np.isfinite([*found, *scored]).all()
    return found


def settings(stage):
    config = find_checkpoint(stage, None, None, config_base_dir()).meta["config"]
    return [config[name] for name in ("max_seq_len", "device_batch_size", "total_batch_size")]


def test_classic_base_mid_and_sft_with_their_own_mixtures(base, base_dir, task_data):
    flags = [*base("classic"), f"--task-data={task_data}"]
    run("mid", *flags, *FEW, "--eval-tokens=768")
    assert len(losses(base_dir, "mid_checkpoints")) == 4
    assert settings("mid") == [192, 2, 768]
    run("sft", *flags, *FEW, *FEW_SCORES, "--eval-steps=2")
    assert len(losses(base_dir, "chatsft_checkpoints")) == 4
    assert settings("sft") == [192, 4, -1]
    model, tokenizer, meta = load_model("sft")
    replies = Engine(model, tokenizer).complete([tokenizer.encode("Hi")], max_tokens=4)
    assert meta["stage"] == "sft" and len(replies[0].tokens) <= 4


def test_current_sft_from_the_base_model_with_its_optimizer(base, base_dir, task_data):
    flags = [*base("current"), f"--task-data={task_data}"]
    found = {}
    for load in (1, 0):
        run("sft", *flags, *FEW, *FEW_SCORES, "--eval-tokens=768", f"--load-optimizer={load}")
        found[load] = losses(base_dir, "chatsft_checkpoints")
    assert settings("sft") == [192, 2, 768]
    assert len(found[1]) == 4 and found[1][0] == found[0][0] and found[1][2:] != found[0][2:]


def test_a_small_mixture_is_seen_once_and_teaches_even_if_a_step_is_larger(
    base, base_dir, task_data
):
    flags = [*base("classic"), f"--task-data={task_data}", "--mesh=1", "--eval-every=-1"]
    run("mid", *flags, "--mixture", "ARC-Easy:30", "GSM8K:10")
    rows = tasks.build(["ARC-Easy:30", "GSM8K:10"], base_dir, "train", task_data=str(task_data))
    _, tokenizer, _ = load_model("mid")
    tokens = sum(len(tokenizer.render(rows[i], 2048)[0]) for i in range(len(rows)))
    steps = len(losses(base_dir, "mid_checkpoints"))
    assert tokens / 768 - 1.5 <= steps <= tokens / 768 + 1
    run("sft", *flags, "--mixture", "ARC-Easy:3", "--eval-metrics-every=-1")
    assert len(losses(base_dir, "chatsft_checkpoints")) == 1
