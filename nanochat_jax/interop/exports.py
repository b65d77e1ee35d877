"""Checkpoints of ours become files that nanochat or transformers reads."""

import dataclasses
import logging
import pathlib
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from nanochat_jax.checkpoint import find_checkpoint, load_tokenizer, store
from nanochat_jax.config.convert import Export
from nanochat_jax.config.gpt import GPTConfig
from nanochat_jax.config.paths import base_dir
from nanochat_jax.interop import eras, huggingface, nanochat
from nanochat_jax.interop.groups import optimizer_file
from nanochat_jax.interop.names import to_nanochat

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

# What nanochat rounds in its own way; the rest of a config decides what is computed.
ROUNDINGS = ("rope_table_dtype", "softcap_dtype", "norm_eps")
IN_MASKS = ("window_pattern", "short_window", "long_window")
ELSEWHERE = ("init", "rope_factor", "pad_vocab_to")


def export_model(command: Export) -> tuple[pathlib.Path, list[str]]:
    """Exports one model; returns the folder written and what to know about it.

    Raises:
        FileNotFoundError: no such checkpoint; the message names the command that makes it.
        ValueError: the target exists, or the format cannot express the model.
    """
    root, out = base_dir(), pathlib.Path(command.dir).expanduser()
    step = command.step if command.step >= 0 else None
    saved = find_checkpoint(command.source, command.model_tag or None, step, root)
    store.verify(saved)
    cfg, tokenizer = GPTConfig(**saved.meta["model_config"]), load_tokenizer(saved, root)
    params = jax.tree.map(np.asarray, saved.params())
    if command.format == "huggingface":
        folder = huggingface.export(out, cfg, params, tokenizer, lossy=command.lossy)
        return folder, ["load it with transformers.AutoModelForCausalLM.from_pretrained"]
    state, meta = to_nanochat(params), nanochat_meta(saved, cfg, command.source)
    state = {key: state[key] for key in eras.expected_shapes(cfg)}
    reader = reader_of(cfg, {key: value.shape for key, value in state.items()}, meta)
    optimizer, why_not = None, "left out (--no-optimizer)"
    if command.optimizer:
        optimizer, why_not = optimizer_file(saved, cfg, params)
    folder = nanochat.write(
        out, command.source, saved.path.parent.name, saved.step, state, meta, tokenizer,
        rule=_origin(saved).get("token_bytes") or ("old" if _is_classic(cfg) else "corrected"),
        optimizer=optimizer,
    )  # fmt: skip
    return folder, [
        f"the optimizer's state: {'written' if optimizer is not None else why_not}",
        f"read by nanochat of {reader}",
        f"it takes {out} as its base directory ($NANOCHAT_BASE_DIR)",
    ]


def reader_of(cfg: GPTConfig, shapes: eras.Shapes, meta: Mapping[str, Any]) -> str:
    """The time of the nanochat that computes a model; its code knows constants, no file tells them.

    Raises:
        ValueError: no nanochat computes it; the message says what none has.
    """
    found = eras.detect(shapes, meta)
    known = [dataclasses.asdict(c) | {"attention windows": c.masks}
             for c in (found.config, *(c for _, c in found.others))]  # fmt: skip
    own = dataclasses.asdict(cfg) | {"attention windows": cfg.masks}
    apart = [[k for k in own if own[k] != other[k] and k not in (*IN_MASKS, *ELSEWHERE)]
             for other in known]  # fmt: skip
    fewest = min(apart, key=lambda names: sum(name not in ROUNDINGS for name in names))
    foreign = [name for name in fewest if name not in ROUNDINGS]
    if foreign:
        told = ", ".join(f"{name} {own[name]}" for name in foreign)
        raise ValueError(
            f"no nanochat computes this model: that of {eras.ERAS[found.era][0]} has not {told}. "
            "Its own format keeps it; --format huggingface may hold it"
        )
    if fewest:
        log.warning("nanochat rounds otherwise (%s): logits differ a little", ", ".join(fewest))
    return eras.ERAS[found.era][0]


def nanochat_meta(saved: store.Saved, cfg: GPTConfig, source: str) -> dict[str, Any]:
    """nanochat's meta file of a checkpoint of ours."""
    meta, origin = saved.meta, _origin(saved)
    shape = {name: getattr(cfg, name) for name in eras.SHAPE}
    if not _is_classic(cfg):
        shape["window_pattern"] = cfg.window_pattern
    own = {k: v for k, v in (meta.get("config") or {}).items() if k in USER_CONFIG}
    config = origin.get("user_config") or own
    out = {
        "step": saved.step,
        "val_bpb": meta.get("metrics", {}).get("val/bpb"),
        "model_config": shape,
        "user_config": config,
    }
    if source == "base":
        out |= {k: own[k] for k in ("device_batch_size", "max_seq_len") if k in own}
    if source == "base" and not _is_classic(cfg):
        loop = meta.get("loop") or {}
        out["total_batch_size"] = own.get("total_batch_size")
        position = _position(saved.loader)
        if position:
            out["dataloader_state_dict"] = position
        best = loop.get("best_bpb")
        out["loop_state"] = {
            "min_val_bpb": float("inf") if best is None else best,
            "smooth_train_loss": loop.get("smooth_loss") or 0,
            "total_training_time": loop.get("train_s") or 0,
        }
    return out


def _position(loader: Any) -> dict[str, int] | None:
    """Where nanochat would say the loader stands: the row group read last, of rank 0."""
    if not loader:
        return None
    if "pq_idx" in loader:
        return dict(loader)
    at = loader["streams"][0]
    epoch, file, group, _ = at.get("last") or at["at"]
    return {"pq_idx": file, "rg_idx": group, "epoch": epoch}


def _is_classic(cfg: GPTConfig) -> bool:
    """Whether nanochat of October 2025 can hold the model."""
    return not (cfg.residual_scalars or cfg.value_embeds or cfg.smear or cfg.backout)


def _origin(saved: store.Saved) -> dict[str, Any]:
    return saved.meta.get("imported") or {}
