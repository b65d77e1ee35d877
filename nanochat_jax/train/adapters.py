"""What a run that trains adapters (LoRA) has of its own: shapes, optimizer, a line in `meta.json`.

The optimizer is the weights' own Muon or AdamW, on thin matrices.
"""

import pathlib
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax.traverse_util import flatten_dict
from jax.sharding import Mesh

from nanochat_jax.checkpoint import store
from nanochat_jax.checkpoint.adapters import LORA, record
from nanochat_jax.checkpoint.prune import source_of
from nanochat_jax.config.stages import ChatStage, Stage, rank_of
from nanochat_jax.models import lora
from nanochat_jax.train.optimizer import Group, transform
from nanochat_jax.train.origin import Origin

# What was tried beside them: docs/log.md, 28 November 2026.
RATES = {"muon": 0.01, "adamw": 0.003}


def shapes(config: ChatStage, params: Any) -> Any:
    """Shapes of a stage's adapters, for parameters (or their shapes); raises as
    `lora.check_rank`."""
    lora.check_rank(params, config.lora_rank)
    draw = partial(lora.init_adapters, rank=config.lora_rank, key=jax.random.key(0))
    return jax.eval_shape(draw, params)


def check_resumed(config: Stage, resumed: store.Saved | None) -> None:
    """Raises ValueError where a run that goes on would train other arrays than it began with."""
    if resumed is None:
        return
    rank, began = rank_of(config), resumed.meta[LORA]["rank"] if LORA in resumed.meta else 0
    now = {"--lora-rank": rank, "--lora-optimizer": vars(config).get("lora_optimizer")}
    own = resumed.meta.get("config") or {}
    then = {"--lora-rank": began, "--lora-optimizer": own.get("lora_optimizer")}
    for flag in now if rank or began else ():
        if now[flag] != then[flag]:
            raise ValueError(
                f"{flag} is {now[flag]}, but the run began with {then[flag]}; leave the flag out, "
                "or begin anew without --resume"
            )


def meta(config: Stage, start: Origin, root: pathlib.Path) -> dict[str, Any]:
    """What the checkpoints of a run say of its adapters; empty where it trains the weights.

    Asked before the run begins: it may move the base out of its own way.
    """
    if not rank_of(config):
        return {}
    if start.resumed is not None:
        return {LORA: start.resumed.meta[LORA]}
    source = start.source
    path = source_of(root, source)["path"]
    return record(config.lora_rank, source.path, source.meta, path)


def make_optimizer(
    config: ChatStage, adapters: Any, *, mesh: Mesh | None = None, compute_dtype: Any = jnp.float32
) -> optax.GradientTransformationExtraArgs:
    """`optimizer.make_optimizer` for a stage's adapters (or their shapes): all of them Muon's or
    all AdamW's, at one rate and without weight decay of AdamW's."""
    optim, lr = config.optim, config.lora_lr or RATES[config.lora_optimizer]
    groups = {}
    if config.lora_optimizer == "adamw":
        # Outputs change by a sum over the rank, whose terms are of one size at any rank; Muon's
        # steps have spectral norms. Source: arXiv:2312.03732 (rsLoRA), of the factor on A B.
        group = Group(lr / config.lora_rank**0.5, optim.adam_beta1, optim.scalar_beta2, 0.0)
        groups = {"/".join(keys): group for keys in flatten_dict(adapters)}
    return transform(optim, groups, lr, mesh, compute_dtype)
