"""Horizons, batches, rates, schedules and utilisation against the original's own set-up code."""

import math
from types import SimpleNamespace

import jax
import numpy as np
import pytest

from nanochat_jax.config import scaling
from nanochat_jax.config.gpt import GPTConfig, recipe_model_defaults
from nanochat_jax.config.optim import DEFAULTS, OptimConfig
from nanochat_jax.config.resolve import resolve
from nanochat_jax.config.stages import BaseTrain
from nanochat_jax.models.gpt import init_params
from nanochat_jax.train import muon, optimizer, peaks
from nanochat_jax.train.schedules import make_schedule
from tests.golden.conftest import era_of, files, load_json
from tests.golden.numbers import ratio

FORMULAS = files("formulas*.json")


def runs(path) -> list[dict]:
    data = load_json(path)
    return [*data["depths"].values(), *data["variants"]]


def cases(*, era: str = "") -> list:
    """One test per file and command line."""
    found = []
    for param in FORMULAS:
        path = param.values[0]
        if path is None:
            return FORMULAS
        for run in runs(path) if era in ("", era_of(path)) else []:
            name = f"{param.id} {' '.join(run['argv'])}".replace("--device_type=cpu", "")
            found.append(pytest.param(path, run, id=name.replace("--device-type=cpu", "").strip()))
    return found


def settings(path, run) -> tuple[BaseTrain, GPTConfig, scaling.Plan]:
    """What our own command line makes of the original's flags."""
    era = era_of(path)
    argv = ["--recipe", era, *run["argv"]]
    config = resolve("base", argv)
    cfg = GPTConfig(**{**recipe_model_defaults(era), **run["model_config"]})
    return config, cfg, scaling.plan(cfg, config)


@pytest.mark.parametrize(("path", "run"), cases())
def test_a_command_line_gives_the_originals_horizon_and_batch(path, run):
    config, cfg, plan = settings(path, run)
    assert plan.num_iterations == run["num_iterations"]
    assert plan.total_batch_size == run.get("total_batch_size", plan.total_batch_size)
    assert plan.total_tokens == run["total_tokens"]
    assert plan.flops_per_token == run["num_flops_per_token"]
    ratio(plan.total_flops, run["total_training_flops"], "formula")
    if "D_REF" in run:
        assert plan.target_tokens == run["target_tokens"]
        ratio(plan.reference_tokens, run["D_REF"], "formula")
        assert scaling.REFERENCE_BATCH == run["B_REF"]
        ratio(plan.optim.weight_decay, run["weight_decay_scaled"], "formula")
        ratio(plan.optim.matrix_lr / config.optim.matrix_lr, run["batch_lr_scale"], "formula")


@pytest.mark.parametrize(("path", "run"), cases())
def test_the_schedules_are_the_originals_at_every_step(path, run):
    plan, want = settings(path, run)[2], run["schedule"]
    with jax.enable_x64(True):
        hyper = make_schedule(plan.optim, plan.num_iterations)(np.array(want["steps"]), 0.0)
        got = {name: np.broadcast_to(x, len(want["steps"])) for name, x in hyper._asdict().items()}
    pairs = {"lr_multiplier": "lr_multiplier", "muon_momentum": "momentum"}
    if "muon_weight_decay" in want:
        pairs["muon_weight_decay"] = "weight_decay"
    for theirs, ours in pairs.items():
        ratio(got[ours], want[theirs], "formula", ours)


def abstract_params(cfg: GPTConfig) -> dict[str, jax.ShapeDtypeStruct]:
    tree = jax.eval_shape(lambda: init_params(cfg, jax.random.key(0)))
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(k, simple=True, separator="/"): x for k, x in leaves}


@pytest.mark.parametrize(("path", "run"), cases(era="classic"))
def test_the_classic_rates_are_the_originals(path, run):
    _, cfg, plan = settings(path, run)
    want = run["initial_lrs"]
    group = lambda name: optimizer.adam_group(name, plan.optim, cfg.n_embd)
    ratio(group("wte/embedding").lr, want["wte"], "formula")
    ratio(group("lm_head/kernel").lr, want["lm_head"], "formula")
    ratio(plan.optim.matrix_lr, want["matrix"], "formula")


# The first parameter of each of the original's AdamW groups, in its order -> ours.
FIRST = {
    "lm_head.weight": "lm_head/kernel",
    "transformer.wte.weight": "wte/embedding",
    "resid_lambdas": "resid_lambdas",
    "x0_lambdas": "x0_lambdas",
    "smear_gate.weight": "smear_gate/kernel",
}


def our_name(theirs: str) -> str:
    value_embed = theirs.replace("value_embeds.", "value_embeds_").replace(".weight", "/embedding")
    return FIRST.get(theirs, value_embed)


@pytest.mark.slow
@pytest.mark.parametrize(("path", "run"), cases(era="current"))
def test_the_groups_of_the_2026_optimizer_are_the_originals(path, run):
    _, cfg, plan = settings(path, run)
    params, optim = abstract_params(cfg), plan.optim
    adam = [p for p in params if not optimizer.is_matrix(p)]
    kernels = optimizer.by_shape({(p,): x for p, x in params.items() if optimizer.is_matrix(p)})
    seen = 0
    for group in run["optimizer_groups"]:
        shape = tuple(group["shape"])
        if group["kind"] == "muon":
            assert len(kernels.pop(shape[::-1])) == group["n_params"]
            rate = optim.matrix_lr
            assert (optim.muon_steps, optim.muon_beta2) == (group["ns_steps"], group["beta2"])
            ratio(optim.weight_decay, group["weight_decay"], "formula")
        else:
            ours = optimizer.adam_group(our_name(group["params"][0]), optim, cfg.n_embd)
            rate, seen = ours.lr, seen + group["n_params"]
            assert [ours.beta1, ours.beta2] == group["betas"] and optim.adam_eps == group["eps"]
            ratio(ours.weight_decay, group["weight_decay"], "formula")
        ratio(rate, group["initial_lr"], "formula")
    assert not kernels and seen == len(adam)


def other_schedule(optim: OptimConfig, n: int, steps, progress) -> SimpleNamespace:
    with jax.enable_x64(True):
        hyper = make_schedule(optim, n)(np.array(steps), np.array(progress))
        return SimpleNamespace(**{k: np.asarray(v) for k, v in hyper._asdict().items()})


@pytest.mark.parametrize("path", FORMULAS)
def test_the_other_stages_have_the_originals_schedules(path):
    era, data = era_of(path), load_json(path)["other_schedules"]
    for name, cases in data.items():
        script, kind = name.split(".")
        stage = {"mid_train": "mid", "chat_sft": "sft", "chat_rl": "rl"}[script]
        for case in cases if isinstance(cases, list) else [cases]:
            ratios = {k: case[k] for k in case if k.endswith(("_ratio", "_frac"))}
            optim = OptimConfig(**{**DEFAULTS[era][stage], **ratios})
            n = case.get("num_iterations", case.get("num_steps", 1))
            hyper = other_schedule(optim, n, case.get("steps", 0), case.get("progress", 0.0))
            field = {"lr_multiplier": "lr_multiplier", "muon_momentum": "momentum"}[kind]
            ratio(getattr(hyper, field), case["value"], "formula", name)


@pytest.mark.parametrize("path", files("current/formulas*.json"))
def test_the_peaks_of_devices_are_the_originals(path):
    for row in load_json(path)["peaks"]:
        assert peaks.peaks(row["device"]) == (float(row["flops"]), float(row["bandwidth"])), row


@pytest.mark.parametrize(("path", "run"), cases())
def test_utilisation_is_counted_as_the_original_counts_it(path, run):
    for example in run.get("mfu_examples", []):
        tokens_per_s = settings(path, run)[2].total_batch_size / example["dt"]
        got = peaks.mfu(
            run["num_flops_per_token"], tokens_per_s, example["device"], example["world_size"]
        )
        # The classic script took every card for an H100; the table knows better.
        counted = example["peak_flops"] / peaks.peaks(example["device"])[0]
        ratio(got, example["mfu_percent"] * counted, "formula")


def test_a_gate_wider_than_it_is_fed_gets_the_larger_rate():
    assert muon.lr_scale((12, 24)) == math.sqrt(2)


def test_the_reference_model_follows_the_runs_own_head_size():
    cfg = GPTConfig(n_layer=10, n_embd=832, n_head=13, n_kv_head=13)
    reference = scaling.reference_config(cfg, aspect_ratio=80, head_dim=64)
    assert (reference.n_embd, reference.n_head, reference.n_kv_head) == (960, 15, 15)
