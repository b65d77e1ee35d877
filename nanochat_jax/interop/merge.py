"""A checkpoint of adapters (LoRA) becomes an ordinary one, which needs its base no longer."""

import logging
import pathlib

from nanochat_jax.checkpoint import find_checkpoint, load_tokenizer, store
from nanochat_jax.checkpoint.adapters import LORA
from nanochat_jax.config import paths
from nanochat_jax.config.convert import Merge

log = logging.getLogger(__name__)


def merge(command: Merge) -> tuple[pathlib.Path, list[str]]:
    """Writes base and adapters as one; returns the step's folder and what to know about it.

    Raises:
        FileNotFoundError: no such checkpoint, or its base is gone.
        ValueError: it holds whole weights already, a file of either is damaged, or the name is
            taken.
    """
    paths.check_tag("--as", command.as_name)
    root = paths.writable_base_dir()
    step = command.step if command.step >= 0 else None
    saved = find_checkpoint(command.source, command.model_tag or None, step, root)
    tag = saved.path.parent.name
    if saved.base is None:
        raise ValueError(f"{saved.path} holds whole weights: there is nothing to merge; those "
                         "of adapters come from --lora-rank")  # fmt: skip
    store.verify(saved)
    directory = paths.checkpoints(root, command.source) / (command.as_name or f"merged-{tag}")
    if store.steps(directory):
        raise ValueError(f"{directory} exists; give another name with --as, or remove it")
    beside = paths.tokenizer(saved.path.parent)
    if beside.is_dir():
        load_tokenizer(saved, root).save(paths.tokenizer(directory))
    # The fingerprint stays: it says how the weights came about. The settings are those of a run
    # that would go on, and that has no adapters.
    config = {**saved.meta["config"], "lora_rank": 0}
    meta = {key: value for key, value in saved.meta.items() if key != LORA}
    path = store.save(directory, saved.step, saved.params(), {**meta, "config": config})
    rank, base = saved.meta[LORA]["rank"], saved.base.path
    return path, [f"adapters of rank {rank} merged into the weights of {base}"]
