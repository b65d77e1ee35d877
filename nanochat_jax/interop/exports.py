"""Checkpoints of ours become files that nanochat, transformers or llama.cpp reads."""

import dataclasses
import logging
import pathlib
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from nanochat_jax.checkpoint import find_checkpoint, load_tokenizer, store
from nanochat_jax.config import scaling
from nanochat_jax.config.convert import Export
from nanochat_jax.config.gpt import GPTConfig
from nanochat_jax.config.paths import base_dir, check_tag
from nanochat_jax.config.stages import STAGES, BaseTrain
from nanochat_jax.config.values import build
from nanochat_jax.interop import elsewhere, eras, nanochat, optim_files
from nanochat_jax.interop.names import rename, to_nanochat
from nanochat_jax.train.optimizer import adam_group
from nanochat_jax.train.schedules import make_schedule

log = logging.getLogger(__name__)

# nanochat's own flags of base training, both eras: what its meta file calls `user_config`.
USER_CONFIG = (
    "run device_type depth aspect_ratio head_dim max_seq_len window_pattern num_iterations "
    "target_flops target_param_data_ratio device_batch_size total_batch_size embedding_lr "
    "unembedding_lr weight_decay matrix_lr scalar_lr grad_clip warmup_ratio warmup_steps "
    "warmdown_ratio final_lr_frac init_lr_frac num_epochs target_examples_per_step eval_every "
    "eval_tokens eval_steps core_metric_every core_metric_max_per_task sample_every save_every "
    "model_tag"
).split()

# torch's AdamW takes all its settings from a file that it loads, these too.
TORCH_ADAMW = dict(
    amsgrad=False, maximize=False, foreach=None, capturable=False, differentiable=False, fused=True,
    decoupled_weight_decay=True,
)  # fmt: skip
# What nanochat rounds in its own way: a model that differs in these alone is the same model.
ROUNDINGS = ("rope_table_dtype", "softcap_dtype", "norm_eps")
# What decides nothing by itself: windows are compared as the masks they make, the others are of
# initial weights, of a table's length, and of rows that no id reaches.
INDIRECT = ("window_pattern", "short_window", "long_window", "init", "pad_vocab_to")


def export_model(command: Export) -> tuple[pathlib.Path, list[str]]:
    """Exports one model; returns the folder written and what to know about it.

    Raises:
        FileNotFoundError: no such checkpoint; the message names the command that makes it.
        ValueError: the target exists, or the format cannot express the model.
    """
    if command.ranks < 1:
        raise ValueError(f"--ranks is {command.ranks}; expected 1 or more")
    check_tag("--as", command.as_name)
    if command.as_name and command.format in ("huggingface", "apertus"):
        raise ValueError("--as names a tag, and a folder of transformers has none; name the folder "
                         "with --dir")  # fmt: skip
    root, out = base_dir(), pathlib.Path(command.dir).expanduser()
    step = command.step if command.step >= 0 else None
    saved = find_checkpoint(command.source, command.model_tag or None, step, root)
    store.verify(saved)
    cfg, tokenizer = saved.cfg, load_tokenizer(saved, root)
    params = jax.tree.map(np.asarray, saved.params())
    if command.format == "gguf":
        return elsewhere.gguf(command, saved, params, tokenizer)
    if command.format != "nanochat":
        return elsewhere.transformers(command, cfg, params, tokenizer)
    expected, state = eras.expected_shapes(cfg), to_nanochat(params)
    # In the order of nanochat's modules, so that a model goes out to the byte as it came in.
    state = {key: state[key] for key in expected}
    meta = nanochat_meta(saved, cfg, command.source)
    reader = reader_of(cfg, {key: value.shape for key, value in state.items()}, meta)
    optimizers, what = [], "left out (--no-optimizer)"
    if command.optimizer:
        optimizers, what = _optimizers(saved, cfg, expected, command.ranks)
    # bits per byte there divide by this table: an import's own rule, or that of the model's time.
    rule = _origin(saved).get("token_bytes") or ("old" if _is_classic(cfg) else "corrected")
    where = (out, command.source, command.as_name or saved.path.parent.name, saved.step)
    folder = nanochat.write(*where, state, meta, tokenizer, rule, optimizers)
    return folder, [
        f"the optimizer's state: {what}",
        f"read by nanochat of {reader}",
        f"it takes {out} as its base directory ($NANOCHAT_BASE_DIR)",
    ]


def reader_of(cfg: GPTConfig, shapes: eras.Shapes, meta: Mapping[str, Any]) -> str:
    """The time of the nanochat that computes a model; ValueError says what none of them has.

    Its constants stand in code, in no file.
    """
    era, own = eras.detect(shapes, meta), _constants(cfg)
    period = eras.ERAS[era.name].period
    candidates = [_constants(c) for c in (era.config, *(c for _, c in era.others))]
    differing = [{k: v for k, v in own.items() if v != other[k]} for other in candidates]
    foreign = lambda names: [f"{k} {v}" for k, v in names.items() if k not in ROUNDINGS]
    fewest = min(differing, key=lambda names: len(foreign(names)))
    if constants := ", ".join(foreign(fewest)):
        raise ValueError(
            f"no nanochat computes this model: that of {period} has not {constants}. "
            "Its own format keeps it; --format huggingface may hold it"
        )
    if fewest:
        log.warning("nanochat rounds otherwise (%s): logits differ a little", ", ".join(fewest))
    return period


def _constants(cfg: GPTConfig) -> dict[str, Any]:
    """What decides what a model computes, by name."""
    direct = {k: v for k, v in dataclasses.asdict(cfg).items() if k not in INDIRECT}
    return direct | {"attention windows": cfg.masks}


def nanochat_meta(saved: store.Saved, cfg: GPTConfig, source: str) -> dict[str, Any]:
    """nanochat's meta file of a checkpoint of ours."""
    meta, origin = saved.meta, _origin(saved)
    shape = {k: v for k, v in dataclasses.asdict(cfg).items() if k in eras.SHAPE}
    # October 2025's loader hands these to a dataclass of six fields, which refuses a seventh.
    if not _is_classic(cfg):
        shape["window_pattern"] = cfg.window_pattern
    own = {k: v for k, v in (meta.get("config") or {}).items() if k in USER_CONFIG}
    if isinstance(own.get("save_every"), str):  # nanochat counts in steps
        own["save_every"] = -1
    out = {
        "step": saved.step,
        "val_bpb": meta.get("metrics", {}).get("val/bpb"),
        "model_config": shape,
        "user_config": origin.get("user_config") or own,
    }
    if source == "base":
        out |= {k: own[k] for k in ("device_batch_size", "max_seq_len") if k in own}
    if source == "base" and not _is_classic(cfg):
        loop = meta.get("loop") or {}
        out["total_batch_size"] = own.get("total_batch_size")
        if loader := saved.loader:
            out["dataloader_state_dict"] = _position(loader)
        best = loop.get("best_bpb")
        out["loop_state"] = {
            "min_val_bpb": float("inf") if best is None else best,
            "smooth_train_loss": loop.get("smooth_loss") or 0,
            "total_training_time": loop.get("train_s") or 0,
        }
    return out


def _position(loader: Any) -> dict[str, int]:
    """Where nanochat would say the loader stands: the row group read last, of rank 0."""
    # An import keeps the original's own position until training continues from it.
    if "pq_idx" in loader:
        return dict(loader)
    stream = loader["streams"][0]
    epoch, file, group, _ = stream.get("last") or stream["at"]
    return {"pq_idx": file, "rg_idx": group, "epoch": epoch}


def _is_classic(cfg: GPTConfig) -> bool:
    """Whether nanochat of October 2025 can hold the model."""
    return not (cfg.residual_scalars or cfg.value_embeds or cfg.smear or cfg.backout)


def _origin(saved: store.Saved) -> dict[str, Any]:
    return saved.meta.get("imported") or {}


def _optimizers(
    saved: store.Saved, cfg: GPTConfig, shapes: eras.Shapes, ranks: int
) -> tuple[list[Any], str]:
    """nanochat's optimizer files of a checkpoint, one a rank, and what is to be said of them."""
    if not saved.has_optimizer:
        return [], "the checkpoint has none"
    if saved.base is not None:
        return [], "left out (it is that of adapters, which are merged)"
    stage = saved.meta["stage"]
    if stage not in STAGES or not saved.meta.get("config"):
        return [], "the run's settings are not known"
    config = build(STAGES[stage], saved.meta["config"])
    whole = optim_files.write(saved.optimizer(), shapes, *_groups(cfg, config, saved.step))
    if not isinstance(whole, list):
        return list(optim_files.shares(whole, ranks)), f"written for {ranks} GPU(s) (--ranks)"
    if ranks > 1:
        raise ValueError(
            f"--ranks is {ranks}, but nanochat of this model's time wrote one optimizer file and "
            "read none; leave the flag out"
        )
    return [whole], "written"


def _groups(cfg: GPTConfig, config: Any, step: int) -> tuple[optim_files.Layout, Any, Any]:
    """The layout, and what a file of it says of AdamW's and Muon's groups after `step` steps.

    torch keeps rates and betas in the file, beside the moments, and takes them from it when it
    loads; ours follow from the run's settings and the step, so they are computed here.
    """
    optim, steps = config.optim, max(config.num_iterations, step)
    if isinstance(config, BaseTrain):  # the one stage whose length and rates follow from its size
        plan = scaling.plan(cfg, config)
        optim, steps = plan.optim, max(plan.num_iterations, step)
    # A file's numbers are Python floats, computed as such: in float32 they would differ.
    with jax.enable_x64(True):
        hyper = jax.tree.map(float, make_schedule(optim, steps)(max(step - 1, 0), 1.0))
    # Of our recipes the later one has Muon's second moment, and its time one file for all.
    single = optim.muon_beta2 > 0

    def adam(key: str) -> dict[str, Any]:
        group = adam_group(rename(key), optim, cfg.n_embd)
        lr, betas = group.lr * config.init_lr_frac, (group.beta1, group.beta2)
        numbers = dict(lr=lr * hyper.lr_multiplier, betas=list(betas) if single else betas,
                       eps=optim.adam_eps, weight_decay=group.weight_decay)  # fmt: skip
        known = {"kind": "adamw", **numbers} if single else numbers | TORCH_ADAMW
        return known | {"initial_lr": lr}

    lr = optim.matrix_lr * config.init_lr_frac
    now = dict(lr=lr * hyper.lr_multiplier, momentum=hyper.momentum)
    later = dict(beta2=optim.muon_beta2, weight_decay=hyper.weight_decay)
    muon = dict(now, nesterov=True, ns_steps=optim.muon_steps)
    if single:
        muon = dict(kind="muon", **now, ns_steps=optim.muon_steps, **later)
    return "single" if single else "pair", adam, muon | {"initial_lr": lr}
