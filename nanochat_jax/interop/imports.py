"""Models of nanochat and of transformers become checkpoints of ours."""

import dataclasses
import logging
import pathlib
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from nanochat_jax.config.convert import Import
from nanochat_jax.config.gpt import GPTConfig
from nanochat_jax.config.paths import CHECKPOINTS, base_dir
from nanochat_jax.evals.bpb import bits_per_byte
from nanochat_jax.interop import eras, huggingface, imported, nanochat
from nanochat_jax.models.gpt import Model
from nanochat_jax.tokenizer import Tokenizer

log = logging.getLogger(__name__)

Lines = list[str]

# By what rule the token bytes beside a tokenizer count.
RULES = {
    "corrected": "its token bytes, and so a recorded bpb, follow the corrected rule",
    "old": "its token bytes, and so a recorded bpb, follow the old rule (a bpb of ours is higher)",
    "unknown": "no token_bytes.pt beside it tells which rule a recorded bpb follows",
}


def import_model(command: Import) -> tuple[pathlib.Path, Lines]:
    """Imports one model; returns the step's folder and what was found.

    Raises:
        FileNotFoundError, ValueError: what is missing, damaged, unsafe or foreign, and what to
            type; nothing has been written then.
    """
    make = _from_nanochat if command.format == "nanochat" else _from_huggingface
    found, lines = make(command)
    return imported.save(base_dir(), found), lines


def _from_nanochat(command: Import) -> tuple[imported.Import, Lines]:
    step = command.step if command.step >= 0 else None
    directory = pathlib.Path(command.dir).expanduser()
    files = nanochat.find(directory, command.source, command.model_tag, step)
    if not files.source:
        raise ValueError(
            f"{directory} does not say which stage its model is of; "
            f"add --source {'|'.join(CHECKPOINTS)}"
        )
    contents = nanochat.read(files, weights_only=command.weights_only)
    tokenizer, rule = _tokenizer_of(files, command.tokenizer)
    era, lines = settle(contents, tokenizer, command)
    meta = contents.meta
    recipe = "classic" if era.era == "A" else "current"
    given = {**(meta.get("user_config") or {}), **_batch(meta)}
    origin = {"format": "nanochat", "era": era.era, "why": list(era.why), "token_bytes": rule}
    loop = meta.get("loop_state") or {}
    found = imported.Import(
        source=files.source,
        tag=files.tag,
        step=files.step,
        cfg=era.config,
        params=contents.params,
        tokenizer=tokenizer,
        origin=origin | {"user_config": meta.get("user_config"), "meta": _small(meta)},
        config=imported.stage_config(files.source, recipe, era.config, given),
        metrics={"val/bpb": meta["val_bpb"]} if meta.get("val_bpb") is not None else {},
        loop={
            "smooth_loss": loop.get("smooth_train_loss"),
            "train_s": loop.get("total_training_time"),
            "best_bpb": loop.get("min_val_bpb"),
        },
        optimizer=contents.optimizer,
        loader=contents.position,
    )
    state = lambda there: "with" if there is not None else "without"
    lines += [
        f"step {files.step}, {state(contents.optimizer)} the optimizer's state, "
        f"{state(contents.position)} the place in the data",
        f"tokenizer: {tokenizer.get_vocab_size()} ids; {RULES[rule]}",
    ]
    return found, lines


def _tokenizer_of(files: nanochat.Files, given: str) -> tuple[Tokenizer, str]:
    folder = pathlib.Path(given).expanduser() if given else files.tokenizer
    if folder is None:
        raise FileNotFoundError(
            f"no tokenizer.pkl beside {files.model} nor in the base directory's tokenizer/; "
            "a model means nothing without its own: give its folder with --tokenizer DIR"
        )
    if (folder / nanochat.PICKLE).exists():
        return nanochat.read_tokenizer(folder)
    return Tokenizer.load(folder), "corrected"


def settle(
    contents: nanochat.Contents, tokenizer: Tokenizer, command: Import
) -> tuple[eras.Found, Lines]:
    """The era after `--softcap` and `--probe` had their say, and lines that tell of it."""
    found = contents.found
    if not 0 <= command.softcap < float("inf"):
        raise ValueError(f"--softcap is {command.softcap:g}; expected a number above 0, e.g. 15")
    if command.softcap:
        config = dataclasses.replace(found.config, logit_softcap=command.softcap)
        found = dataclasses.replace(
            found, config=config, why=(*found.why, f"softcap {command.softcap:g} as given")
        )
        return found, [str(found)]
    if not command.probe:
        if found.others:
            others = ", ".join(name for name, _ in found.others)
            log.warning("also possible: %s; --probe TEXT compares them on a text", others)
        return found, [str(found)]
    candidates = [("as read", found.config), *found.others]
    scored = probe(contents, tokenizer, command.probe, candidates)
    lines = [f"{bpb:.4f} bits per byte  {name}" for bpb, name, _ in scored]
    best = scored[0]
    if len(scored) > 1:
        margin = scored[1][0] - best[0]
        lines.append(f"margin {margin:.4f} bits per byte: {best[1]} is taken")
        found = dataclasses.replace(found, config=best[2], why=(*found.why, f"probe: {best[1]}"))
    return found, [str(found), *lines]


def probe(
    contents: nanochat.Contents,
    tokenizer: Tokenizer,
    text: str,
    candidates: list[tuple[str, GPTConfig]],
) -> list[tuple[float, str, GPTConfig]]:
    """(bits per byte, name, config) of each candidate on a text or a file of it, best first."""
    file = pathlib.Path(text).expanduser()
    text = file.read_text(encoding="utf-8") if len(text) < 4096 and file.is_file() else text
    ids = [tokenizer.get_bos_token_id(), *tokenizer.encode(text)]
    if len(ids) < 3:
        raise ValueError("--probe needs a text of some words, or a file of it")
    token_bytes_V = np.asarray(tokenizer.token_bytes())
    params = jax.tree.map(jnp.asarray, contents.params)
    scored = []
    for name, cfg in candidates:
        model = Model.create(cfg, params, dtype="float32")
        scored.append(
            (bits_per_byte(model, _rows(ids, cfg.sequence_len), token_bytes_V), name, cfg)
        )
    return sorted(scored, key=lambda item: item[0])


def _rows(ids: list[int], T: int) -> list[dict[str, np.ndarray]]:
    """The ids as rows of at most `T` tokens, each predicting the next; the last one is padded."""
    T = min(T, len(ids) - 1)
    rows = []
    for start in range(0, len(ids) - 1, T):
        piece = np.asarray(ids[start : start + T + 1], np.int32)
        missing = T + 1 - len(piece)
        inputs = np.pad(piece[:-1], (0, missing))
        targets = np.pad(piece[1:], (0, missing), constant_values=-1)
        rows.append({"inputs": inputs[None], "targets": targets[None]})
    return rows


def _batch(meta: Mapping[str, Any]) -> dict[str, Any]:
    names = ("device_batch_size", "max_seq_len", "total_batch_size")
    return {name: meta[name] for name in names if meta.get(name) is not None}


def _small(meta: Mapping[str, Any]) -> dict[str, Any]:
    """What else the meta file says, to be given back at an export."""
    return {k: v for k, v in meta.items() if k not in ("user_config", "model_config")}


def _from_huggingface(command: Import) -> tuple[imported.Import, Lines]:
    folder = pathlib.Path(command.dir).expanduser()
    found = huggingface.load(folder)
    source = command.source or "sft"
    step = max(command.step, 0)
    made = imported.Import(
        source=source,
        tag=command.model_tag or f"d{found.cfg.n_layer}",
        step=step,
        cfg=found.cfg,
        params=found.params,
        tokenizer=found.tokenizer,
        origin={"format": "huggingface", "notes": list(found.notes)},
        config=imported.stage_config(source, "classic", found.cfg, {}),
    )
    return made, [*found.notes, f"taken as a model of stage {source} (--source says otherwise)"]
