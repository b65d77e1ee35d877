"""The original's base training, through our command line: same weights, shards and flags."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from nanochat_jax.checkpoint import store
from nanochat_jax.interop.names import from_nanochat
from tests.golden.conftest import ROOT, beside, era_of, files, load_npz
from tests.golden.models import config_of
from tests.golden.test_optim_traj import finals_close, losses_close, weights
from tests.golden.tokenizers import golden_tokenizer


@pytest.fixture
def base(tmp_path, monkeypatch) -> Path:
    """An empty base directory."""
    monkeypatch.setenv("NANOCHAT_BASE_DIR", str(tmp_path / "base"))
    return tmp_path / "base"


def put_data(base: Path, era_folder: Path) -> None:
    """The shards and the tokenizer that the golden runs read."""
    shutil.copytree(beside(era_folder, "loader_data*"), base / "base_data")
    golden_tokenizer(era_folder).save(base / "tokenizer")


def run(program: str, *argv: str) -> None:
    """Runs one of our programs to its end."""
    command = [sys.executable, "-m", f"scripts.{program}", *argv]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def flags_of(data) -> list[str]:
    """The recorded command line, without what names the folder of a resumed run."""
    return [flag for flag in data["cfg.json"]["argv"] if not flag.startswith("--model-tag")]


def losses(folder: Path) -> np.ndarray:
    """`train/loss` of every step."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return np.array([line["train/loss"] for line in lines if "train/loss" in line])


@pytest.mark.slow
@pytest.mark.parametrize("path", files("optim_traj_init*.npz"))
def test_a_run_from_their_weights_gives_their_losses(path, base, tmp_path):
    data, era = load_npz(path), era_of(path)
    put_data(base, path.parent)
    cfg = config_of(path, data["cfg.json"]["model_config"])
    start = tmp_path / "start"
    meta = {"model_config": cfg.__dict__, "tokenizer_hash": golden_tokenizer(path.parent).hash}
    state = {k.removeprefix("start."): v for k, v in data.items() if k.startswith("start.")}
    store.save(start, 0, from_nanochat(state), meta)
    argv = ["--stage", "base", "--recipe", era, "--init", str(start), "--model-tag", "twin"]
    run("train", *argv, *flags_of(data))
    folder = base / "base_checkpoints" / "twin"
    recorded = data["rec.loss"]
    between = np.abs(recorded - data["rec.loss_f32"]).max() if "rec.loss_f32" in data else 0.0
    variant = "bf16" if era == "classic" else "f32"
    losses_close(losses(folder), recorded, era, variant, between)
    finals_close(store.find(folder).params(), weights(data, "final."), era, variant)
    if era == "current":  # classic counted a lone byte as three: its bits per byte are lower
        bpb = store.find(folder).meta["metrics"]["val/bpb"]
        assert bpb == pytest.approx(data["cfg.json"]["val_bpb_final"], rel=0.02)


@pytest.mark.slow
@pytest.mark.parametrize("path", files("current/optim_traj_resume*.npz"))
def test_their_checkpoint_imported_and_resumed_gives_their_losses(path, base):
    data = load_npz(path)
    put_data(base, path.parent)
    theirs = beside(path.parent, "checkpoint_resume*")
    tokenizer = beside(path.parent, "checkpoint_*/tokenizer")
    run("convert", "import", "--dir", str(theirs), "--tokenizer", str(tokenizer))
    run("train", "--stage", "base", "--resume", *flags_of(data))
    tag = next((theirs / "base_checkpoints").iterdir()).name
    folder = base / "base_checkpoints" / tag
    losses_close(losses(folder), data["rec.loss"], "current", "f32", 0.0)
    finals_close(store.find(folder).params(), weights(data, "final."), "current", "f32")
