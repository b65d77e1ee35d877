"""The base stage: a model from nothing (or from `--init`) learns to continue packed documents."""

import pathlib
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import grain

from nanochat_jax.config import paths, scaling
from nanochat_jax.config.gpt import GPTConfig, param_counts, recipe_model_defaults, shape_of_depth
from nanochat_jax.config.stages import BaseTrain
from nanochat_jax.data import ledger, ranks, shards
from nanochat_jax.data.loader import pretraining_loader
from nanochat_jax.data.shards import Shards
from nanochat_jax.hosts import group
from nanochat_jax.tokenizer import Tokenizer
from nanochat_jax.train import hooks, sources
from nanochat_jax.train.curriculum import Curriculum, RunContext, loader_rows
from nanochat_jax.train.tokenizer import find_data


def model_config(config: BaseTrain, vocab_size: int) -> GPTConfig:
    """The model that the dial, the recipe and the tokenizer ask for."""
    shape = shape_of_depth(config.depth, config.aspect_ratio, config.head_dim)
    defaults = recipe_model_defaults(config.recipe)
    given = dict(sequence_len=config.max_seq_len, window_pattern=config.window_pattern)
    return GPTConfig(**{**defaults, **shape, **given, "vocab_size": vocab_size})


def shards_of(config: BaseTrain, root: pathlib.Path, recorded: Mapping[str, Any] | None) -> Shards:
    """The shards that a run reads: those it began with, or those in use where it begins."""
    if recorded:
        return ledger.same_shards(root, recorded)
    return find_data(root, config.embedded_world)


def loader(
    config: BaseTrain, tokenizer: Tokenizer, micro_rows: int
) -> Callable[..., grain.IterDataset]:
    """`pretraining_loader` with the run's rows; takes the files, and `ranks` and `prefetch`."""
    rows = (tokenizer, micro_rows, config.max_seq_len)
    return lambda files, **kw: pretraining_loader(files, *rows, kind=config.loader, **kw)


def ranks_here(config: BaseTrain, context: RunContext) -> set[int]:
    """The ranks of the loader whose rows go to devices of this process."""
    owners = [device.process_index for device in context.mesh.devices.flat]
    pulls, rows = context.micro_batches, context.micro_rows
    share = pulls * rows // (context.passes * len(owners))
    return ranks.owned(config.loader_ranks, pulls, rows, share, owners, group.index())


def curriculum(config: BaseTrain, context: RunContext) -> Curriculum:
    """Documents to the horizon of the scaling plan.

    Raises:
        FileNotFoundError: there are no shards.
        ValueError: the settings name no horizon, or the shards of a resumed run have changed.
    """
    cfg, tokenizer, devices = context.cfg, context.tokenizer, context.mesh.size
    data, plan = shards_of(config, context.root, context.recorded), scaling.plan(cfg, config)
    # One recipe of rows for both splits: a validation loss on rows cut in another way would not
    # be that of the training's task.
    batches = partial(loader, config, tokenizer)
    val = lambda: batches(config.device_batch_size)([data.val])
    counts, steps = param_counts(cfg)["total"], plan.num_iterations
    recorded = ledger.of_shards(data)
    own = {
        "Number of parameters": counts,
        "Number of FLOPs per token": f"{plan.flops_per_token:e}",
        "Tokens : Params ratio": plan.total_tokens / counts,
        "Devices": devices,
        "Total training flops": f"{plan.total_flops:e}",
    }
    deal = dict(ranks=config.loader_ranks, own=ranks_here(config, context))
    train = batches(context.micro_rows)(data.train, **deal)
    return Curriculum(
        summary=shards.summary(data),
        steps=steps,
        rows=loader_rows(train, context.micro_batches, context.passes, steps),
        hooks=(
            hooks.bits_per_byte_hook(config, tokenizer, val, config.eval_tokens),
            hooks.core_hook(config, tokenizer, paths.eval_bundle(context.root)),
            hooks.samples_hook(config, tokenizer),
        ),
        figures=lambda common: own | common,
        data=recorded | {"micro_rows": context.micro_rows},
        source=sources.documents(data, recorded["train"]),
        flops_per_token=plan.flops_per_token,
    )
