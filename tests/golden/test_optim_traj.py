"""Twelve steps of the original's training script, driven through our train step on its batches."""

import dataclasses
from functools import partial

import jax
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from nanochat_jax.config import scaling
from nanochat_jax.config.gpt import GPTConfig, recipe_model_defaults
from nanochat_jax.config.optim import OptimConfig
from nanochat_jax.config.resolve import resolve
from nanochat_jax.config.stages import BaseTrain
from nanochat_jax.interop.names import from_nanochat
from nanochat_jax.models.gpt import GPT
from nanochat_jax.train.optimizer import make_optimizer
from nanochat_jax.train.schedules import make_schedule
from nanochat_jax.train.step import Batch, TrainState, train_step
from tests.golden.conftest import TOL, era_of, files, load_npz
from tests.golden.numbers import absolute, ratio, tensor


def settings(path, data) -> tuple[GPTConfig, BaseTrain]:
    era, cfg = era_of(path), data["cfg.json"]
    argv = [flag for flag in cfg["argv"] if not flag.startswith("--resume")]
    config = resolve("base", ["--recipe", era, *argv])
    return GPTConfig(**{**recipe_model_defaults(era), **cfg["model_config"]}), config


def scaled_optim(cfg: GPTConfig, config: BaseTrain, data) -> OptimConfig:
    """The optimizer after batch and horizon had their say."""
    config = dataclasses.replace(config, reference_kv_heads=cfg.n_kv_head)
    optim = scaling.plan(cfg, config).optim
    derived = data["cfg.json"].get("derived") or {}
    if "weight_decay_scaled" in derived:
        ratio(optim.weight_decay, derived["weight_decay_scaled"], "formula")
    return optim


def weights(data, prefix: str) -> dict:
    return from_nanochat(
        {k.removeprefix(prefix): v for k, v in data.items() if k.startswith(prefix)}
    )


def train(cfg, optim, data, state_of, first: int = 0):
    """Metrics of every recorded step, and the last parameters."""
    params, put_state = state_of
    tx = make_optimizer(cfg, optim, params)
    total = first + len(data["in.inputs"])
    rows = data["in.inputs"].shape[2]
    step = partial(train_step, GPT(cfg), tx, make_schedule(optim, total), rows)
    step, state, history = jax.jit(step), put_state(TrainState.create(params, tx)), []
    for inputs, targets in zip(data["in.inputs"], data["in.targets"], strict=True):
        state, metrics = step(state, Batch(inputs, targets, np.float32(0)))
        history.append(metrics)
    return {k: np.array([float(m[k]) for m in history]) for k in history[0]}, state.params


def losses_close(got, want, era: str, variant: str, between: float) -> None:
    """`between`: how far the file's own two precisions are apart, which grows with the rates."""
    if era == "classic":
        absolute(got, want, f"traj_loss_classic_{variant}")
    elif variant == "bf16":
        assert np.abs(got - want).max() < max(TOL["traj_loss_classic_bf16"], 2 * between)
    else:
        absolute(got[:4], want[:4], "traj_loss_current_early")
        absolute(got, want, "traj_loss_current")


def finals_close(got, want, era: str, variant: str) -> None:
    got, want = (flatten_dict(tree, sep="/") for tree in (got, want))
    assert got.keys() == want.keys()
    for path in want:
        scalar = path.endswith(("lambdas", "lambda", "smear_gate/kernel"))
        current = "traj_final_current" + "_scalars" * scalar
        kind = f"traj_final_classic_{variant}" if era == "classic" else current
        tensor(got[path], want[path], kind, path)


def recorded(data, era: str, variant: str):
    """The losses and, where the file holds them, final weights of that precision."""
    as_run = "bf16" if era == "classic" else "f32"
    suffix = "" if variant == as_run else f"_{variant}"
    loss = data.get(f"rec.loss{suffix}")
    if loss is None:
        loss = data[f"rec.micro_losses{suffix}"].mean(axis=1)
    prefix = f"final{suffix}."
    return loss, prefix if any(k.startswith(prefix) for k in data) else None


@pytest.mark.slow
@pytest.mark.parametrize("variant", ["f32", "bf16"])
@pytest.mark.parametrize("path", [*files("optim_traj_init*.npz"), *files("optim_traj_rand*.npz")])
def test_a_run_of_the_train_step_is_the_originals(path, variant):
    data, era = load_npz(path), era_of(path)
    cfg, config = settings(path, data)
    optim = dataclasses.replace(
        scaled_optim(cfg, config, data),
        muon_dtype={"f32": "float32", "bf16": "bfloat16"}[variant],
    )
    got, params = train(cfg, optim, data, (weights(data, "start."), lambda state: state))
    loss, final = recorded(data, era, variant)
    other, _ = recorded(data, era, "f32" if variant == "bf16" else "bf16")
    losses_close(got["train/loss"], loss, era, variant, np.abs(loss - other).max())
    if final:
        finals_close(params, weights(data, final), era, variant)
    schedules_are_the_originals(got, data)
    if variant == "f32":
        norms = data.get("rec.grad_norm_total_preclip", data["rec.grad_norm_total"])
        np.testing.assert_allclose(got["train/grad_norm"][:4], norms[:4], rtol=1e-2)


def schedules_are_the_originals(got, data) -> None:
    names = {
        "rec.lr_multiplier": "train/lr_multiplier",
        "rec.muon_momentum": "train/momentum",
        "rec.muon_weight_decay": "train/weight_decay",
    }
    for theirs, ours in names.items():
        if theirs in data:
            n = len(got[ours])
            np.testing.assert_allclose(got[ours], data[theirs][:n], rtol=2e-6, atol=1e-7)
