"""The original on what we export: it loads it whole, computes our logits, trains on as we do.

    make test-original ORIGINAL=CLONE

A checkout of karpathy/nanochat (October 2025, or July 2026) is not ours to ship, so no other run of
the tests comes here; this one fails without it. Its programs run as they are, on a CPU in float32,
not compiled.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from nanochat_jax.checkpoint import load_model, store
from nanochat_jax.interop import nanochat
from nanochat_jax.models import fp8
from tests import needs

ROOT = Path(__file__).resolve().parents[2]
ORIGINAL = needs.folder("NANOCHAT_ORIGINAL")
CLASSIC = (ORIGINAL / "nanochat" / "muon.py").exists()
STEPS, HALF = 8, 4

UNUSED = ("wandb", "rustbpe")  # packages that the original imports and these runs never use
SHADOWED = ("scripts", "tasks")  # folders of its that have the names of our packages
FLAGS = {
    "depth": 2, "max_seq_len": 48, "device_batch_size": 2, "total_batch_size": 96,
    "num_iterations": STEPS, "eval_every": 4, "eval_tokens": 192, "core_metric_every": -1,
}  # fmt: skip
LATER = {  # rates that move a model of this size, at a batch that the recipe scales them down for
    "aspect_ratio": 16, "head_dim": 16, "sample_every": -1, "save_every": HALF, "embedding_lr": 8.0,
    "unembedding_lr": 0.25, "matrix_lr": 1.0, "scalar_lr": 6.0, "warmup_steps": 1,
}  # fmt: skip
LOGITS = """
import sys, numpy as np, torch
from nanochat.checkpoint_manager import load_model
model, tokenizer, meta = load_model("base", torch.device("cpu"), phase="eval")
ids = np.load(sys.argv[1])
with torch.inference_mode():
    logits = model(torch.tensor(ids)).float().numpy()
np.savez(sys.argv[2], logits=logits, step=meta["step"], words=tokenizer.encode("the cat sat"))
"""
# The original of October 2025 does not resume; its optimizers do.
GO_ON = """
import sys, numpy as np, torch
from nanochat.checkpoint_manager import load_model, load_checkpoint
from nanochat.common import get_base_dir
data = np.load(sys.argv[1])
model, _, meta = load_model("base", torch.device("cpu"), phase="train")
folder = get_base_dir() + "/base_checkpoints/d2"
states = load_checkpoint(folder, meta["step"], torch.device("cpu"), load_optimizer=True)[1]
optimizers = model.setup_optimizers()
for optimizer, state in zip(optimizers, states, strict=True):
    optimizer.load_state_dict(state)
losses = []
for x, y, momentum in zip(data["inputs"], data["targets"], data["momentum"]):
    loss = model(torch.tensor(x), torch.tensor(y).long())
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    for group in optimizers[1].param_groups:
        group["momentum"] = float(momentum)
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = group["initial_lr"]
        optimizer.step()
    model.zero_grad(set_to_none=True)
    losses.append(loss.item())
np.save(sys.argv[2], losses)
"""

FP8 = """
import sys, numpy as np, torch
from nanochat.fp8 import Float8Linear
data = {k: torch.tensor(v) for k, v in np.load(sys.argv[1]).items()}
linear = Float8Linear(*data["kernel"].shape, bias=False)
linear.weight.data = data["kernel"].T.contiguous()
x = data["x"].requires_grad_()
y = linear(x)
y.backward(data["dy"])
np.savez(sys.argv[2], y=y.detach(), x=x.grad, kernel=linear.weight.grad.T)
"""


def program(command: list[str], where: Path, **env: str) -> str:
    """Runs a program to its end and returns what it printed."""
    env = {**os.environ, "JAX_PLATFORMS": "cpu", **env}
    done = subprocess.run(command, cwd=where, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return done.stdout


def ours(base: Path, name: str, *argv: str) -> None:
    program([sys.executable, "-m", f"scripts.{name}", *argv], ROOT, NANOCHAT_BASE_DIR=str(base))


def theirs(base: Path, stubs: Path, *argv: str) -> str:
    """Runs Python in the original's folder."""
    for name in SHADOWED:
        (stubs / name).mkdir(parents=True, exist_ok=True)
        (stubs / name / "__init__.py").write_text(f"__path__ = [{str(ORIGINAL / name)!r}]")
    for name in UNUSED:
        (stubs / f"{name}.py").touch()
    return program(
        [sys.executable, *argv], ORIGINAL, NANOCHAT_BASE_DIR=str(base), NANOCHAT_DTYPE="float32",
        TORCHDYNAMO_DISABLE="1", PYTHONPATH=f"{stubs}{os.pathsep}{ORIGINAL}",
    )  # fmt: skip


def flags(recipe: str) -> list[str]:
    values = FLAGS if recipe == "classic" else FLAGS | LATER
    return [f"--{name.replace('_', '-')}={value}" for name, value in values.items()]


def write_shards(folder: Path) -> None:
    """Four small shards of made-up text, the last for validation."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    words = "the cat sat on a mat and some dogs ran home to sleep under 12 warm blankets".split()
    for i in range(4):
        texts = [" ".join(rng.choice(words, rng.integers(5, 60))) + "." for _ in range(60)]
        pq.write_table(pa.table({"text": texts}), folder / f"shard_{i:05d}.parquet", 15)


@pytest.fixture(scope="module")
def exported(tmp_path_factory) -> tuple[Path, Path]:
    """(our base directory with a trained model, the one exported for the original)."""
    root = tmp_path_factory.mktemp("both")
    base, out = root / "ours", root / "theirs"
    write_shards(base / "base_data")
    recipe = "classic" if CLASSIC else "current"
    ours(base, "train", "--stage", "tokenizer", "--vocab-size", "290")
    shape = ["--aspect-ratio=16", "--head-dim=16", f"--save-every={HALF}"]
    extra = [f for f in shape if f.split("=")[0] not in " ".join(flags(recipe))]
    ours(base, "train", "--stage", "base", "--recipe", recipe, *flags(recipe), *extra)
    ours(base, "convert", "export", "--dir", str(out), "-i", "base", "-s", str(HALF))
    shutil.copytree(base / "base_data", out / "base_data")
    return base, out


def test_it_loads_our_export_strictly_and_computes_our_logits(exported, tmp_path):
    base, out = exported
    model, tokenizer, _ = load_model("base", step=HALF, base=base, dtype="float32")
    ids = np.random.default_rng(1).integers(0, model.cfg.vocab_size, (3, 40))
    np.save(tmp_path / "ids.npy", ids)
    where = [str(tmp_path / "ids.npy"), str(tmp_path / "out.npz")]
    theirs(out, tmp_path / "stubs", "-c", LOGITS, *where)
    got = np.load(tmp_path / "out.npz")
    off = np.abs(got["logits"] - np.asarray(model(ids))).max()
    print(f"largest difference of logits: {off:.2e}")
    assert off < 1e-4 and got["step"] == HALF
    assert got["words"].tolist() == tokenizer.encode("the cat sat")


def test_it_goes_on_from_our_export_with_our_losses(exported, tmp_path):
    """As far as its era does: the classic one has no resume, but optimizers that can be loaded."""
    losses = optimizers_go_on if CLASSIC else base_training_resumes
    got, want = losses(*exported, tmp_path)
    print("theirs", got, "ours", want)
    assert len(got) == STEPS - HALF
    np.testing.assert_allclose(got, want, atol=1e-3)


def test_its_8_bit_products_and_gradients_are_ours(tmp_path):
    """Of the era that has them."""
    if CLASSIC:
        assert not (ORIGINAL / "nanochat" / "fp8.py").exists()
        return
    draw = np.random.default_rng(3).standard_t
    sizes = {"x": (2, 64, 256, 3.0), "kernel": (256, 512, 0.02), "dy": (2, 64, 512, 1e-5)}
    given = {k: (draw(4, s[:-1]) * s[-1]).astype(np.float32) for k, s in sizes.items()}
    np.savez(tmp_path / "in.npz", **given)
    where = [str(tmp_path / "in.npz"), str(tmp_path / "out.npz")]
    theirs(tmp_path, tmp_path / "stubs", "-c", FP8, *where)
    y_BTO, back = jax.vjp(
        lambda x, kernel: fp8.dot_general(x, kernel, (((2,), (0,)), ((), ()))),
        given["x"], given["kernel"],
    )  # fmt: skip
    want = dict(zip(("y", "x", "kernel"), (y_BTO, *back(given["dy"])), strict=True))
    for name, got in np.load(tmp_path / "out.npz").items():
        off = np.abs(got - np.asarray(want[name])).max() / np.abs(got).max()
        print(f"largest difference of 8-bit products, {name}: {off:.1e} of the largest entry")
        assert off < 1e-6


def base_training_resumes(base: Path, out: Path, tmp_path: Path) -> tuple[list[float], list[float]]:
    """(their losses, ours) of the base stage resumed in the middle by each's own program."""
    again = tmp_path / "again"
    shutil.copytree(out / "base_data", again / "base_data")
    ours(again, "convert", "import", "--dir", str(out))
    go_on = [*flags("current"), f"--resume-from-step={HALF}"]
    ours(again, "train", "--stage", "base", "--resume", *go_on)
    printed = theirs(
        out, tmp_path / "stubs", "-m", "scripts.base_train", "--device-type=cpu", *go_on
    )
    lines = (again / "base_checkpoints/d2/metrics.jsonl").read_text().splitlines()
    want = [json.loads(line) for line in lines]
    want = [line["train/loss"] for line in want if "train/loss" in line]
    meta = nanochat.read_meta(out / f"base_checkpoints/d2/meta_{HALF:06d}.json")
    return unsmoothed(printed, meta["loop_state"]["smooth_train_loss"]), want


def unsmoothed(printed: str, smooth: float) -> list[float]:
    """The losses behind the averages that the original prints, six digits each."""
    found = []
    for step, told in re.findall(r"step (\d+)/\d+ .*? loss: ([\d.]+)", printed):
        now = float(told) * (1 - 0.9 ** (int(step) + 1))
        found.append((now - 0.9 * smooth) / 0.1)
        smooth = now
    return found


def optimizers_go_on(base: Path, out: Path, tmp_path: Path) -> tuple[list[float], list[float]]:
    """(their losses, ours) of steps on given batches, from the exported optimizers."""
    from nanochat_jax.config.resolve import read, settle
    from nanochat_jax.models.gpt import GPT
    from nanochat_jax.train.optimizer import make_optimizer
    from nanochat_jax.train.schedules import make_schedule
    from nanochat_jax.train.step import Batch, TrainState, train_step

    contents = nanochat.read(nanochat.find(out))
    cfg, more = contents.era.config, STEPS - HALF
    trained = store.find(base / "base_checkpoints" / "d2", HALF).meta["config"]
    config = settle(read("base", ["--warmdown-ratio=0"]), saved=trained)
    params = jax.tree.map(np.asarray, contents.params)
    tx, schedule = make_optimizer(cfg, config.optim, params), make_schedule(config.optim, STEPS)
    state = TrainState.create(params, tx).replace(
        step=np.int32(HALF), opt_state=jax.tree.map(np.asarray, contents.optimizer)
    )
    rows = np.random.default_rng(2).integers(0, cfg.vocab_size, (more, 2, 49), dtype=np.int32)
    inputs, targets = rows[:, :, :-1], rows[:, :, 1:]
    momentum = [float(schedule(HALF + i, 0.0).momentum) for i in range(more)]
    np.savez(tmp_path / "in.npz", inputs=inputs, targets=targets, momentum=momentum)
    want = []
    for x, y in zip(inputs, targets, strict=True):
        batch = Batch(x[None], y[None], np.float32(0))
        state, metrics = train_step(GPT(cfg), tx, schedule, 2, state, batch)
        want.append(float(metrics["train/loss"]))
    where = [str(tmp_path / "in.npz"), str(tmp_path / "out.npy")]
    theirs(out, tmp_path / "stubs", "-c", GO_ON, *where)
    return np.load(tmp_path / "out.npy").tolist(), want
