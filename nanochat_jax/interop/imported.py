"""A checkpoint of ours out of what another program saved: its meta, its place, its tokenizer."""

import dataclasses
import logging
import pathlib
import shutil
from collections.abc import Mapping
from typing import Any

from nanochat_jax.checkpoint import store
from nanochat_jax.config import load as config_load
from nanochat_jax.config.gpt import GPTConfig
from nanochat_jax.config.paths import CHECKPOINTS
from nanochat_jax.config.stages import STAGES, recipes_of
from nanochat_jax.tokenizer import Tokenizer

log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Import:
    """What to save: `config` is the run's as far as it is known, `origin` says where it is from."""

    source: str
    tag: str
    step: int
    cfg: GPTConfig
    params: Any
    tokenizer: Tokenizer
    origin: Mapping[str, Any]
    config: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    metrics: Mapping[str, float] = dataclasses.field(default_factory=dict)
    loop: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    optimizer: Any = None
    loader: Any = None


def save(root: pathlib.Path, found: Import) -> pathlib.Path:
    """Writes it below the base directory `root` and returns the step's folder.

    The tokenizer lies beside the checkpoint; the base directory's own is written only where there
    is none.

    Raises:
        ValueError: that step is there already, another tokenizer is beside it, or the tokenizer
            has not the model's vocabulary.
    """
    size = found.tokenizer.get_vocab_size()
    if size != found.cfg.vocab_size:
        raise ValueError(
            f"the tokenizer has {size} ids, the model {found.cfg.vocab_size}: it is another "
            "model's; give the right one with --tokenizer DIR"
        )
    directory = root / CHECKPOINTS[found.source] / found.tag
    if found.step in store.steps(directory):
        raise ValueError(
            f"{directory / f'{found.step:06d}'} exists; import under another name with "
            "--model-tag, or remove it"
        )
    beside = directory / "tokenizer"
    if beside.is_dir() and Tokenizer.load(beside).hash != found.tokenizer.hash:
        raise ValueError(f"{beside} holds another tokenizer; import under another --model-tag")
    meta = {
        "stage": found.source,
        "final": not _unfinished(found),
        "model_config": dataclasses.asdict(found.cfg),
        "config": dict(found.config),
        "fingerprint": {"imported": dict(found.origin)},
        "tokenizer_hash": found.tokenizer.hash,
        "metrics": dict(found.metrics),
        "loop": dict(found.loop),
        "imported": dict(found.origin),
    }
    had = beside.is_dir()
    found.tokenizer.save(beside)
    try:
        path = store.save(
            directory, found.step, found.params, meta,
            optimizer=found.optimizer, loader=found.loader,
        )  # fmt: skip
    except BaseException:
        if not had:
            shutil.rmtree(beside)
        raise
    if not (root / "tokenizer").exists():
        found.tokenizer.save(root / "tokenizer")
    return path


def stage_config(source: str, recipe: str, cfg: GPTConfig, given: Mapping[str, Any]) -> dict:
    """The stage's settings: the recipe's, the shape's, and of `given` what the stage knows."""
    cls = STAGES.get(source)
    if cls is None:
        return dict(given)
    values: dict[str, Any] = {"recipe": recipe, **recipes_of(source)[recipe]}
    known = config_load.flatten(config_load.build(cls, values))
    shape = dict(max_seq_len=cfg.sequence_len)
    if source == "base":
        head = cfg.n_embd // cfg.n_head
        shape |= dict(depth=cfg.n_layer, aspect_ratio=max(1, cfg.n_embd // cfg.n_layer))
        shape |= dict(head_dim=head, window_pattern=cfg.window_pattern)
        shape |= dict(reference_kv_heads=cfg.n_kv_head)
    for name, value in {**shape, **given}.items():
        if name not in known or value is None:
            continue
        try:
            config_load.build(cls, {name: value})
        except ValueError as error:
            log.warning("%s; the default stays", error)
            continue
        values[name] = value
    return config_load.flatten(config_load.build(cls, values))


def _unfinished(found: Import) -> bool:
    """Whether the run's own settings name a step beyond this one."""
    return found.step < (found.config.get("num_iterations") or -1)
