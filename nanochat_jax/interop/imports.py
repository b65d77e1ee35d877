"""Models of nanochat and of transformers become checkpoints of ours."""

import dataclasses
import logging
import pathlib
import shutil
from collections.abc import Mapping
from typing import Any

from nanochat_jax.checkpoint import store
from nanochat_jax.config import paths
from nanochat_jax.config.convert import Import
from nanochat_jax.config.gpt import GPTConfig, dials_of
from nanochat_jax.config.stages import STAGES, recipes_of
from nanochat_jax.config.values import build, flatten
from nanochat_jax.interop import eras, huggingface, nanochat
from nanochat_jax.interop.probe import choose_era
from nanochat_jax.tokenizer import Tokenizer

log = logging.getLogger(__name__)

# By what rule the token bytes beside a tokenizer count.
RULES = {
    "corrected": "its token bytes, and so a recorded bpb, follow the corrected rule",
    "old": "its token bytes, and so a recorded bpb, follow the old rule (a bpb of ours is higher)",
    "unknown": "no token_bytes.pt beside it says which rule a recorded bpb follows",
}


def import_model(command: Import) -> tuple[pathlib.Path, list[str]]:
    """Imports one model; returns the step's folder and what was found.

    FileNotFoundError and ValueError say what is missing, damaged, unsafe or foreign, and what to
    type; nothing has been written then.
    """
    paths.check_tag("--as", command.as_name)
    if command.format == "nanochat":
        return _from_nanochat(command)
    return _from_huggingface(command)


def _from_nanochat(command: Import) -> tuple[pathlib.Path, list[str]]:
    step = command.step if command.step >= 0 else None
    directory = pathlib.Path(command.dir).expanduser()
    files = nanochat.find(directory, command.source, command.model_tag, step)
    if not files.source:
        raise ValueError(f"{directory} does not say which stage its model is of; "
                         f"add --source {'|'.join(paths.CHECKPOINTS)}")  # fmt: skip
    contents = nanochat.read(files, weights_only=command.weights_only)
    tokenizer, rule = _tokenizer_of(files, command.tokenizer)
    era, lines = choose_era(contents, tokenizer, command)
    # A folder whose name is no tag gets the usual one, or no program would find the model.
    tag = command.as_name or files.tag or f"d{era.config.n_layer}"
    path = _save(
        files.source, tag, files.step, era.config, contents.params, tokenizer,
        _origin(era, rule, contents.meta), _run_of(files.source, era, contents.meta),
        contents.optimizer, contents.position,
    )  # fmt: skip
    state = lambda there: "with" if there is not None else "without"
    lines += [
        f"step {files.step}, {state(contents.optimizer)} the optimizer's state, "
        f"{state(contents.position)} the place in the data",
        f"tokenizer: {tokenizer.get_vocab_size()} ids; {RULES[rule]}",
    ]
    return path, lines


def _tokenizer_of(files: nanochat.Files, given: str) -> tuple[Tokenizer, str]:
    """The tokenizer and the rule of its token bytes, from the folder given or found."""
    folder = pathlib.Path(given).expanduser() if given else files.tokenizer
    if folder is None:
        raise FileNotFoundError(
            f"no tokenizer.pkl beside {files.model} nor in the base directory's tokenizer/; "
            "a model means nothing without its own: give its folder with --tokenizer DIR"
        )
    if (folder / nanochat.PICKLE).exists():
        return nanochat.read_tokenizer(folder)
    return Tokenizer.load(folder), "corrected"


def _origin(era: eras.Detected, rule: str, meta: Mapping[str, Any]) -> dict[str, Any]:
    """Where a model of nanochat is from; an export gives the rest of its meta file back."""
    rest = {k: v for k, v in meta.items() if k not in ("user_config", "model_config")}
    known = {"format": "nanochat", "era": era.name, "why": list(era.why), "token_bytes": rule}
    return known | {"user_config": meta.get("user_config"), "meta": rest}


def _run_of(source: str, era: eras.Detected, meta: Mapping[str, Any]) -> dict[str, Any]:
    """What our `meta.json` says of a run, from nanochat's: its config, metrics and loop."""
    # The flags, and above them what the run made of them: of a total batch of -1, say.
    made = ("device_batch_size", "max_seq_len", "total_batch_size")
    given = meta.get("user_config") or {}
    given = {**given, **{k: meta[k] for k in made if meta.get(k) is not None}}
    recipe, loop = "classic" if era.name == "A" else "current", meta.get("loop_state") or {}
    ours = dict(smooth_loss="smooth_train_loss", train_s="total_training_time",
                best_bpb="min_val_bpb")  # fmt: skip
    return {
        "config": _stage_config(source, recipe, era.config, given),
        "metrics": {"val/bpb": meta["val_bpb"]} if meta.get("val_bpb") is not None else {},
        "loop": {name: loop.get(theirs) for name, theirs in ours.items()},
    }


def _from_huggingface(command: Import) -> tuple[pathlib.Path, list[str]]:
    if command.model_tag:
        raise ValueError("--model-tag chooses among nanochat's folders, and one of transformers "
                         f"has no tags; to name it here type --as {command.model_tag}")  # fmt: skip
    model = huggingface.load(pathlib.Path(command.dir).expanduser())
    # Nothing in such a folder names the stage; sft is what the chat programs look for.
    source = command.source or "sft"
    path = _save(
        source, command.as_name or f"d{model.cfg.n_layer}", max(command.step, 0),
        model.cfg, model.params, model.tokenizer,
        {"format": "huggingface", "notes": list(model.notes)},
        {"config": _stage_config(source, "classic", model.cfg, {}), "metrics": {}, "loop": {}},
    )  # fmt: skip
    return path, [*model.notes, f"taken as a model of stage {source} (--source says otherwise)"]


def _save(
    source: str, tag: str, step: int, cfg: GPTConfig, params: Any, tokenizer: Tokenizer,
    origin: Mapping[str, Any], run: Mapping[str, Any], optimizer: Any = None, loader: Any = None,
) -> pathlib.Path:  # fmt: skip
    """Writes it below the base directory and returns the step's folder.

    The tokenizer lies beside the checkpoint; the base directory's own is written only where there
    is none.
    """
    root, size = paths.writable_base_dir(), tokenizer.get_vocab_size()
    if size != cfg.vocab_size:
        raise ValueError(f"the tokenizer has {size} ids, the model {cfg.vocab_size}: it is "
                         "another model's; give the right one with --tokenizer DIR")  # fmt: skip
    directory = paths.checkpoints(root, source) / tag
    if step in store.steps(directory):
        raise ValueError(f"{directory / f'{step:06d}'} exists; import under another name with "
                         "--as, or remove it")  # fmt: skip
    beside = paths.tokenizer(directory)
    kept = beside.is_dir()
    if kept and Tokenizer.load(beside).hash != tokenizer.hash:
        raise ValueError(f"{beside} holds another tokenizer; import under another --model-tag")
    tokenizer.save(beside)
    meta = {
        **run,
        "stage": source,
        # Unfinished where the run's own settings name a step beyond this one.
        "final": step >= (run["config"].get("num_iterations") or -1),
        "model_config": dataclasses.asdict(cfg),
        # Equal to no stage's fingerprint: a speedrun must not take it for a stage of its own.
        "fingerprint": {"imported": origin},
        "tokenizer_hash": tokenizer.hash,
        "imported": origin,
    }
    try:
        path = store.save(directory, step, params, meta, optimizer=optimizer, loader=loader)
    except BaseException:
        if not kept:
            shutil.rmtree(beside)
        raise
    if not paths.tokenizer(root).exists():
        tokenizer.save(paths.tokenizer(root))
    return path


def _stage_config(source: str, recipe: str, cfg: GPTConfig, given: Mapping[str, Any]) -> dict:
    """The stage's settings: the recipe's, the shape's, and of `given` what the stage knows."""
    cls = STAGES[source]
    values: dict[str, Any] = {"recipe": recipe, **recipes_of(source)[recipe]}
    known = flatten(build(cls, values))
    shape = dials_of(cfg) if source == "base" else dict(max_seq_len=cfg.sequence_len)
    for name, value in {**shape, **given}.items():
        if name not in known or value is None:
            continue
        # The original takes any Python literal for a flag; one of a type that ours has not is no
        # reason to refuse a model.
        try:
            build(cls, {name: value})
            values[name] = value
        except ValueError as error:
            log.warning("%s; the default stays", error)
    return flatten(build(cls, values))
