"""What a chat stage takes over from the checkpoint it starts from, where nothing else is given.

Source: nanochat `scripts/chat_sft.py`, July 2026.
"""

import pathlib
from collections.abc import Callable
from typing import Any

from nanochat_jax.checkpoint import find_checkpoint, store
from nanochat_jax.config.gpt import GPTConfig
from nanochat_jax.config.load import build
from nanochat_jax.config.stages import BaseTrain, SFTTrain, recipes_of
from nanochat_jax.train import scaling

RATES = ("embedding_lr", "unembedding_lr", "matrix_lr")  # as given, before the batch scales them
BATCH = ("device_batch_size", "total_batch_size")


def settled(stage: str, make: Callable[..., Any], root: pathlib.Path) -> Any:
    """The config of a chat stage: its recipe, rows, rates and batch are the checkpoint's; of rl,
    whose rates are its own, the recipe alone.

    Args:
        make: gives the config as files and flags have it; with `inherited` (flat settings), over
            those. Without a checkpoint that is all: the stage itself says what is missing.

    Raises:
        ValueError: a damaged checkpoint.
    """
    config = make()
    saved = _start(config, root)
    if saved is None:
        return config
    theirs = saved.meta.get("config") or {}
    taken = {"recipe": theirs["recipe"]} if "recipe" in theirs else {}
    if not config.init:
        taken["source"] = config.source  # another recipe may begin this stage elsewhere
    config = make(inherited=taken)
    if stage == "rl":
        return config
    return make(inherited=taken | _settings(stage, config, saved, theirs))


def _start(config: Any, root: pathlib.Path) -> store.Saved | None:
    """The checkpoint that the stage would start from."""
    if config.init:
        return store.find(pathlib.Path(config.init).expanduser())
    step = config.step if config.step >= 0 else None
    try:
        return find_checkpoint(config.source, config.model_tag or None, step, root)
    except FileNotFoundError:
        return None


def _settings(stage: str, config: Any, saved: store.Saved, theirs: dict) -> dict[str, Any]:
    names = RATES + BATCH if stage == "mid" or _counts_tokens(config) else RATES
    taken = {name: theirs[name] for name in names if name in theirs}
    if taken.get("total_batch_size") == -1 and saved.meta["stage"] == "base":
        taken["total_batch_size"] = _derived_batch(saved.meta)
    return taken | {"max_seq_len": saved.meta["model_config"]["sequence_len"]}


def _counts_tokens(config: SFTTrain) -> bool:
    """Whether a step is so many tokens: its rows are packed, and no number of them was given."""
    usual = recipes_of("sft")[config.recipe].get("target_examples_per_step")
    usual = usual or SFTTrain.target_examples_per_step
    return config.packing == "bestfit" and config.target_examples_per_step == usual


def _derived_batch(meta: dict[str, Any]) -> int:
    """Tokens of a step, where the base run derived them from its horizon."""
    config = build(BaseTrain, meta["config"])
    return scaling.plan(GPTConfig(**meta["model_config"]), config).total_batch_size
