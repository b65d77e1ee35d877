"""From a stage and a tag to the model, its tokenizer and its meta."""

import pathlib
from collections.abc import Iterator
from typing import Any

from nanochat_jax.checkpoint import store
from nanochat_jax.config import paths
from nanochat_jax.devices import compute_dtype
from nanochat_jax.files import OLD, whole_folder
from nanochat_jax.hosts import group
from nanochat_jax.models.gpt import Model
from nanochat_jax.tokenizer import Tokenizer


def load_model(
    source: str, model_tag: str | None = None, step: int | None = None, *,
    base: pathlib.Path | None = None, dtype: Any = None, merge: bool = True, **original: Any,
) -> tuple[Model, Tokenizer, dict[str, Any]]:  # fmt: skip
    """The model of a stage (`base`, `mid`, `sft`, `rl`), its tokenizer and its `meta.json`.

    By default of the deepest tag, its last step, below the configured base directory, computed in
    the type that suits the device (`devices.automatic_dtype`). Adapters (LoRA) are merged into the
    weights that they were trained beside; with `merge` False they stay beside them, and an engine
    answers with them and without.

    Raises:
        FileNotFoundError: no such checkpoint; the message names the command that makes it.
        ValueError: the checkpoint is damaged, or the tokenizer is another one.
        TypeError: the arguments are those of nanochat's function, or unknown.
    """
    if original or not isinstance(model_tag, str | None):
        got = ", ".join([repr(model_tag), *original])
        raise TypeError(
            f"load_model takes source, model_tag, step, base, dtype and merge; got {got}. It needs "
            "no device, for JAX places the model, and no phase, for a model is a function of its "
            f"parameters: load_model({source!r})"
        )
    root = base or paths.base_dir()
    saved = find_checkpoint(source, model_tag, step, root)
    group.first(lambda: store.verify(saved))  # of several processes one reads it all
    tokenizer = load_tokenizer(saved, root)
    params = saved.params() if merge else saved.unmerged()
    model = Model.create(saved.cfg, params, dtype or compute_dtype())
    return model, tokenizer, saved.meta


def find_checkpoint(
    source: str, model_tag: str | None, step: int | None, root: pathlib.Path
) -> store.Saved:
    """The saved step of a stage; raises FileNotFoundError with the command that makes it."""
    folder = paths.checkpoints(root, source)
    tag = model_tag or paths.guess_tag(folder)
    if tag is None or not store.steps(folder / tag):
        have = sorted(p.name for p in folder.iterdir() if store.steps(p)) if folder.is_dir() else []
        which = f"tag {model_tag!r} of " if model_tag else ""
        make = f"`python -m scripts.train --stage {source}`, or all stages with `make speedrun`"
        raise FileNotFoundError(
            f"no checkpoint for {which}stage {source!r} in {folder}; found tags: "
            f"{', '.join(have) or 'none'}; make one with {make}"
        )
    return store.find(folder / tag, step)


def load_tokenizer(saved: store.Saved, root: pathlib.Path) -> Tokenizer:
    """The tokenizer kept beside a checkpoint, else the base one; ValueError for another model's."""
    # An import keeps its model's tokenizer beside it: the base directory may have another.
    beside = paths.tokenizer(saved.path.parent)
    folder = beside if beside.is_dir() else paths.tokenizer(root)
    tokenizer = Tokenizer.load(folder)
    # The size alone tells little: tokenizers of 32,768 ids trained on other texts are common, and
    # with one of them a model answers nonsense without any error.
    expected = saved.meta.get("tokenizer_hash")
    if expected and tokenizer.hash != expected:
        raise ValueError(
            f"the tokenizer in {folder} (hash {tokenizer.hash[:12]}) is not the one that "
            f"{saved.path} was trained with (hash {expected[:12]}); put that tokenizer into "
            f"{beside}, or train again with `python -m scripts.speedrun --fresh`"
        )
    have, vocab = tokenizer.get_vocab_size(), saved.meta["model_config"]["vocab_size"]
    if have != vocab:
        raise ValueError(
            f"the tokenizer in {folder} has {have} ids, the checkpoint {saved.path} expects {vocab}"
        )
    return tokenizer


def keep_tokenizer(root: pathlib.Path, new: Tokenizer) -> list[str]:
    """Puts the base directory's tokenizer beside the models that were trained with it, before `new`
    replaces it: without it they would be lost. Returns their names, such as `base/d4`."""
    try:
        old = Tokenizer.load(paths.tokenizer(root))
    except (FileNotFoundError, ValueError):
        return []
    kept = []
    for stage, run in _runs(root) if old.hash != new.hash else ():
        beside = paths.tokenizer(run)
        if not beside.is_dir() and store.find(run).meta.get("tokenizer_hash") == old.hash:
            with whole_folder(beside) as part:
                old.save(part)
            kept.append(f"{stage}/{run.name}")
    return kept


def _runs(root: pathlib.Path) -> Iterator[tuple[str, pathlib.Path]]:
    """Stage and folder of every run that has a step, of those moved aside too."""
    for stage in paths.CHECKPOINTS:
        folder = paths.checkpoints(root, stage)
        for run in (*folder.glob("*"), *folder.glob(f"{OLD}/*")):
            if store.steps(run):
                yield stage, run
