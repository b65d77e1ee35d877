"""The optimizer of a checkpoint of ours as nanochat's file: its groups carry a run's numbers."""

from typing import Any

import jax

from nanochat_jax.checkpoint import store
from nanochat_jax.config import load as config_load
from nanochat_jax.config.gpt import GPTConfig
from nanochat_jax.config.stages import STAGES
from nanochat_jax.interop import optim_files
from nanochat_jax.interop.names import path_of, to_nanochat
from nanochat_jax.train import scaling
from nanochat_jax.train.optimizer import adam_group
from nanochat_jax.train.schedules import make_schedule


def optimizer_file(saved: store.Saved, cfg: GPTConfig, params: Any) -> tuple[Any, str]:
    """nanochat's optimizer file of a checkpoint, or None and the reason."""
    if not saved.has_optimizer:
        return None, "the checkpoint has none"
    stage = saved.meta["stage"]
    if stage not in STAGES or not saved.meta.get("config"):
        return None, "the run's settings are not known"
    state = saved.optimizer()
    config = config_load.build(STAGES[stage], saved.meta["config"])
    shapes = {key: value.shape for key, value in to_nanochat(params).items()}
    numbers, layout = rates(cfg, config, saved.step)
    return optim_files.write(state, shapes, layout, numbers), ""


def rates(cfg: GPTConfig, config: Any, step: int) -> tuple[optim_files.Rates, optim_files.Layout]:
    """The numbers of the optimizer's groups after `step` steps, and which layout they are in."""
    optim, steps = config.optim, max(config.num_iterations, step)
    if hasattr(config, "target_param_data_ratio"):
        plan = scaling.plan(cfg, config)
        optim, steps = plan.optim, max(plan.num_iterations, step)
    with jax.enable_x64(True):  # a file's numbers are Python's
        hyper = jax.tree.map(float, make_schedule(optim, steps)(max(step - 1, 0), 1.0))
    single = optim.muon_beta2 > 0

    def adam(key: str) -> dict[str, Any]:
        group = adam_group(path_of(key), optim, cfg.n_embd)
        lr = group.lr * config.init_lr_frac
        betas = [group.beta1, group.beta2] if single else (group.beta1, group.beta2)
        return dict(
            lr=lr * hyper.lr_multiplier, betas=betas, eps=optim.adam_eps,
            weight_decay=group.weight_decay, initial_lr=lr,
        )  # fmt: skip

    lr = optim.matrix_lr * config.init_lr_frac
    muon = dict(lr=lr * hyper.lr_multiplier, momentum=hyper.momentum)
    if single:
        muon |= dict(ns_steps=optim.muon_steps, beta2=optim.muon_beta2)
        muon |= dict(weight_decay=hyper.weight_decay, initial_lr=lr)
    else:
        muon |= dict(nesterov=True, ns_steps=optim.muon_steps, initial_lr=lr)
    return optim_files.Rates(adam, muon), "single" if single else "pair"
