"""What a stage takes over from the `meta.json` of the checkpoint it starts from.

A chat stage goes on with the recipe, rows, rates and batch of its parent: whoever trained a base
model with other rates need not repeat them. All of it stands above the defaults and below flags
and a file that was named.

Source: nanochat `scripts/chat_sft.py`, July 2026.
"""

from collections.abc import Mapping
from typing import Any

from nanochat_jax.config import scaling
from nanochat_jax.config.gpt import GPTConfig, dials_of
from nanochat_jax.config.stages import BaseTrain, ChatStage, MidTrain, RLTrain, SFTTrain
from nanochat_jax.config.values import build

Meta = Mapping[str, Any]  # a checkpoint's `meta.json`
RATES = ("embedding_lr", "unembedding_lr", "matrix_lr")  # as given, before the batch scales them
BATCH = ("device_batch_size", "total_batch_size")


def dials(meta: Meta) -> dict[str, Any]:
    """Of base training with `--init`: the shape of that model, which its rates are scaled by."""
    shape, config = dials_of(GPTConfig.of(meta["model_config"])), meta.get("config") or {}
    return shape | {name: config[name] for name in ("aspect_ratio", "head_dim") if name in config}


def recipe(config: ChatStage, meta: Meta) -> dict[str, Any]:
    """The parent's recipe, without a change of parents.

    `config` is what files and flags say. Its `source` found the parent; the recipe that the parent
    turns out to have may begin this stage elsewhere (`current` goes from base to sft).
    """
    theirs = meta.get("config") or {}
    taken = {"recipe": theirs["recipe"]} if "recipe" in theirs else {}
    return taken if config.init else taken | {"source": config.source}


def rates_and_batch(config: ChatStage, meta: Meta) -> dict[str, Any]:
    """Rates, batch and row length of mid and sft; nothing of rl, whose rates are its own.

    `config` is the stage with the parent's recipe.
    """
    if isinstance(config, RLTrain):
        return {}
    theirs = meta.get("config") or {}
    # A batch is so many tokens, but not where it is so many rows: padded, or of a number given.
    in_tokens = isinstance(config, MidTrain) or (
        config.packing == "bestfit"
        and config.target_examples_per_step == SFTTrain.target_examples_per_step
    )
    names = RATES + BATCH if in_tokens else RATES
    taken = {name: theirs[name] for name in names if name in theirs}
    if taken.get("total_batch_size") == -1 and meta["stage"] == "base":
        # The base run derived its batch from its horizon, and kept no more of that than the -1.
        plan = scaling.plan(GPTConfig.of(meta["model_config"]), build(BaseTrain, theirs))
        taken["total_batch_size"] = plan.total_batch_size
    return taken | {"max_seq_len": meta["model_config"]["sequence_len"]}
