"""nanochat's own checkpoint folders: found, read and written; no torch is needed.

`<base dir>/<stage>_checkpoints/<tag>/` holds `model_<step>.pt`, `meta_<step>.json` and optimizer
files; `<base dir>/tokenizer/` holds `tokenizer.pkl` and `token_bytes.pt`. Published models often
have all of it in one folder. What is read is checked here, once, before anything is written.
"""

import dataclasses
import json
import logging
import math
import os
import pathlib
import re
import shutil
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from nanochat_jax.config.paths import CHECKPOINTS
from nanochat_jax.interop import eras, optim_files, tiktoken_pickle, torchfile
from nanochat_jax.interop.names import from_nanochat
from nanochat_jax.tokenizer import Tokenizer

log = logging.getLogger(__name__)

PICKLE, BYTES = "tokenizer.pkl", "token_bytes.pt"
MODEL = re.compile(r"model_(\d+)\.pt")


@dataclasses.dataclass(frozen=True)
class Files:
    """Where one saved step lies; `optimizer` are the files of ranks 0, 1, ..."""

    source: str
    tag: str
    step: int
    model: pathlib.Path
    meta: pathlib.Path
    optimizer: tuple[pathlib.Path, ...]
    tokenizer: pathlib.Path | None


@dataclasses.dataclass(frozen=True)
class Contents:
    """What one saved step holds. `state` are nanochat's keys, `params` our tree of the same arrays.

    `position` is the loader's, as nanochat saves it; None, like `optimizer`, where there is none.
    """

    state: dict[str, np.ndarray]
    meta: dict[str, Any]
    found: eras.Found
    optimizer: dict[str, Any] | None
    position: dict[str, int] | None

    @property
    def params(self) -> dict[str, Any]:
        return from_nanochat(self.state)


def find(
    directory: pathlib.Path, source: str = "", tag: str = "", step: int | None = None
) -> Files:
    """The files of one step below a base directory of nanochat, or in a folder that holds them.

    `directory` may also be a model's file. `source` of what is found is empty where nothing tells.

    Raises:
        FileNotFoundError: there is none.
        ValueError: there are several; the message names them and the flag that chooses.
    """
    if directory.is_file() and (named := MODEL.fullmatch(directory.name)):
        directory, step = directory.parent, int(named[1]) if step is None else step
    if not directory.is_dir():
        raise FileNotFoundError(f"no folder {directory}; --dir takes nanochat's base directory, "
                                "or the folder that holds model_<step>.pt")  # fmt: skip
    folder, source = _folder(directory, source, tag)
    models = {int(m[1]): p for p in folder.iterdir() if (m := MODEL.fullmatch(p.name))}
    if step is None and len(models) > 1:
        raise ValueError(
            f"{folder} has the steps {_listed(models)}; choose with --step N, or name the file"
        )
    if step is not None and step not in models:
        raise FileNotFoundError(f"no model of step {step} in {folder}; found {_listed(models)}")
    step = next(iter(models)) if step is None else step
    meta = folder / f"meta_{step:06d}.json"
    if not meta.exists():
        raise FileNotFoundError(
            f"{models[step]} has no {meta.name} beside it; the model's shape stands in it: "
            "fetch it from where the model came from"
        )
    name = folder.name if folder != directory or re.match(r"d\d+", folder.name) else tag
    return Files(
        source, tag or name, step, models[step], meta, _optimizer_files(folder, step),
        _tokenizer_folder(folder),
    )  # fmt: skip


def read(files: Files, *, weights_only: bool = False) -> Contents:
    """The contents of one step; arrays are views of the files, nothing is copied.

    Raises:
        ValueError: a damaged, unsafe or foreign file, by name.
    """
    meta = read_meta(files.meta)
    state = eras.stripped(_state_dict(files.model))
    found = eras.detect({key: value.shape for key, value in state.items()}, meta)
    shapes = {key: value.shape for key, value in state.items()}
    optimizer = None if weights_only else _optimizer(files.optimizer, shapes)
    return Contents(state, meta, found, optimizer, None if weights_only else _position(meta))


def read_meta(path: pathlib.Path) -> dict[str, Any]:
    """The meta file, numbers that are not finite as None."""
    try:
        meta = json.loads(path.read_text(), parse_constant=lambda _: None)
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not JSON ({error}); copy it again") from None
    if not isinstance(meta, dict) or not isinstance(meta.get("model_config"), dict):
        raise ValueError(f"{path} has no model_config; is it nanochat's meta file?")
    for name in ("user_config", "loop_state", "dataloader_state_dict"):
        if not isinstance(meta.get(name), dict | None):
            raise ValueError(f"{path}: {name} is {meta[name]!r}; expected an object, or nothing")
    return meta


def _position(meta: Mapping[str, Any]) -> dict[str, int] | None:
    """The place in the data of a meta file; the epoch was not told from the first."""
    told = meta.get("dataloader_state_dict")
    if told is None:
        return None
    position = {"epoch": 1, **told}
    wrong = position.keys() ^ {"epoch", "pq_idx", "rg_idx"}
    if wrong or any(type(value) is not int for value in position.values()):
        raise ValueError(
            f"dataloader_state_dict is {told}; expected whole numbers pq_idx, rg_idx and epoch. "
            "--weights-only leaves it and the optimizer"
        )
    return position


def read_tokenizer(folder: pathlib.Path) -> tuple[Tokenizer, str]:
    """The tokenizer and by which rule its `token_bytes.pt` counts: `corrected` or `old`.

    The old rule (until July 2026) counts a lone byte of a character as the three of U+FFFD, so a
    bpb that used it is lower. Without the file the rule is called `unknown`.

    Raises:
        ValueError: a damaged or unsafe file, or two that do not belong together.
    """
    fields = tiktoken_pickle.load(folder / PICKLE)
    tokenizer = Tokenizer(dict(fields.mergeable_ranks), fields.pat_str, dict(fields.special_tokens))
    if not (folder / BYTES).exists():
        return tokenizer, "unknown"
    held = np.asarray(torchfile.load(folder / BYTES))
    for rule in ("corrected", "old"):
        if np.array_equal(held, tokenizer.token_bytes(corrected=rule == "corrected")):
            return tokenizer, rule
    raise ValueError(
        f"{folder / BYTES} ({len(held)} ids) does not belong to {PICKLE} beside it "
        f"({tokenizer.get_vocab_size()} ids); copy both from the same run"
    )


def write(
    out: pathlib.Path,
    source: str,
    tag: str,
    step: int,
    state: Mapping[str, np.ndarray],
    meta: Mapping[str, Any],
    tokenizer: Tokenizer,
    *,
    rule: str = "corrected",
    optimizer: Any = None,
) -> pathlib.Path:
    """Writes one step where nanochat with `out` as base directory looks, and returns its folder.

    `optimizer` is what `optim_files.write` made. All of it is written beside, then renamed.

    Raises:
        ValueError: that step, or another tokenizer, is there already.
        OSError: the disk is full; nothing half-written is left.
    """
    folder = out / CHECKPOINTS[source] / tag
    files: dict[str, Any] = {f"model_{step:06d}.pt": dict(state)}
    if optimizer is not None:
        rank = "" if isinstance(optimizer, list) else "_rank0"
        files[f"optim_{step:06d}{rank}.pt"] = optimizer
    for name in (*files, f"meta_{step:06d}.json"):
        if (folder / name).exists():
            raise ValueError(f"{folder / name} exists; choose another --dir, or remove it")
    there = has_tokenizer(out / "tokenizer", tokenizer)
    part = out / f".{source}-{tag}.part"
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    try:
        for name, tree in files.items():
            torchfile.save(part / name, tree)
        (part / f"meta_{step:06d}.json").write_text(json.dumps(dict(meta), indent=2))
        if not there:
            write_tokenizer(part / "tokenizer", tokenizer, rule)
            _move(part / "tokenizer", out / "tokenizer", (BYTES, PICKLE))
        _move(part, folder, (*files, f"meta_{step:06d}.json"))
    finally:
        shutil.rmtree(part, ignore_errors=True)
        if not any(out.iterdir()):
            out.rmdir()
    return folder


def _move(source: pathlib.Path, target: pathlib.Path, names: Sequence[str]) -> None:
    target.mkdir(parents=True, exist_ok=True)
    for name in names:
        os.replace(source / name, target / name)


def has_tokenizer(folder: pathlib.Path, tokenizer: Tokenizer) -> bool:
    """Whether the tokenizer lies in a folder already; raises ValueError if another one does."""
    if (folder / PICKLE).exists() and read_tokenizer(folder)[0].hash != tokenizer.hash:
        raise ValueError(f"{folder} holds another tokenizer; choose another --dir")
    return (folder / PICKLE).exists()


def write_tokenizer(folder: pathlib.Path, tokenizer: Tokenizer, rule: str = "corrected") -> None:
    """`tokenizer.pkl` and `token_bytes.pt` as nanochat has them, in a new folder."""
    folder.mkdir(parents=True, exist_ok=True)
    table = np.asarray(tokenizer.token_bytes(corrected=rule != "old"), np.int32)
    torchfile.save(folder / BYTES, table)
    fields = tiktoken_pickle.EncodingFields(
        "rustbpe", tokenizer.pattern, tokenizer.mergeable_ranks, tokenizer.special_tokens
    )
    tiktoken_pickle.save(folder / PICKLE, fields)


def _folder(directory: pathlib.Path, source: str, tag: str) -> tuple[pathlib.Path, str]:
    """The folder that holds the model files, and the stage they belong to."""
    if _has_models(directory):
        by_name = {name: stage for stage, name in CHECKPOINTS.items()}
        return directory, source or by_name.get(directory.parent.name, "")
    tags = {
        stage: sorted(p.name for p in (directory / name).iterdir() if _has_models(p))
        for stage, name in CHECKPOINTS.items()
        if (directory / name).is_dir()
    }
    tags = {stage: names for stage, names in tags.items() if names}
    if not tags:
        raise FileNotFoundError(
            f"no nanochat checkpoint in {directory}: neither model_<step>.pt nor "
            f"{'/, '.join(CHECKPOINTS.values())}/ with a tag below"
        )
    if source and source not in tags:
        raise FileNotFoundError(f"no {source} model in {directory}; found {_listed(tags)}")
    if not source and len(tags) > 1:
        raise ValueError(
            f"{directory} has models of {_listed(tags)}; choose with --source, or name the folder"
        )
    source = source or next(iter(tags))
    if tag and tag not in tags[source]:
        raise FileNotFoundError(f"no {source} model {tag!r}; found {_listed(tags[source])}")
    if not tag and len(tags[source]) > 1:
        raise ValueError(
            f"{directory / CHECKPOINTS[source]} has the tags {_listed(tags[source])}; "
            "choose with --model-tag, or name the folder"
        )
    return directory / CHECKPOINTS[source] / (tag or tags[source][0]), source


def _has_models(folder: pathlib.Path) -> bool:
    return folder.is_dir() and any(MODEL.fullmatch(p.name) for p in folder.iterdir())


def _optimizer_files(folder: pathlib.Path, step: int) -> tuple[pathlib.Path, ...]:
    """One file, or those of ranks 0, 1, ... in order."""
    ranks = {
        int(m[1]): p
        for p in folder.glob(f"optim_{step:06d}_rank*.pt")
        if (m := re.fullmatch(r".*_rank(\d+)\.pt", p.name))
    }
    gaps = sorted(set(range(max(ranks, default=-1) + 1)) - ranks.keys())
    if gaps:
        raise ValueError(
            f"{folder} has optimizer files of ranks {_listed(ranks)} but not of {_listed(gaps)}; "
            "copy them too, or leave the optimizer with --weights-only"
        )
    single = folder / f"optim_{step:06d}.pt"
    return tuple(ranks[r] for r in sorted(ranks)) or ((single,) if single.exists() else ())


def _tokenizer_folder(folder: pathlib.Path) -> pathlib.Path | None:
    places = (folder, folder / "tokenizer", folder.parent.parent / "tokenizer")
    return next((p for p in places if (p / PICKLE).exists()), None)


def _state_dict(path: pathlib.Path) -> dict[str, np.ndarray]:
    state = torchfile.load(path)
    bad = not isinstance(state, Mapping) or [
        k for k, v in state.items() if not isinstance(v, np.ndarray)
    ]
    if bad:
        what = "no dict of tensors" if bad is True else f"no tensor under {_listed(bad)}"
        raise ValueError(f"{path} is not a state dict: {what}")
    return dict(state)


def _optimizer(paths: Sequence[pathlib.Path], shapes: optim_files.Shapes) -> dict[str, Any] | None:
    """Our optimizer state of the files; None where there are none or nanochat saved only a part."""
    if not paths:
        return None
    trees = [torchfile.load(path) for path in paths]
    try:
        return optim_files.read(trees, shapes)
    except optim_files.Incomplete as error:
        if "_rank" in paths[0].name:
            raise ValueError(
                f"{paths[0].parent}: {error}; copy the files of all ranks, or leave the optimizer "
                "with --weights-only"
            ) from None
        log.warning("%s holds rank 0's part alone (%s): the optimizer is left", paths[0], error)
        return None
    except ValueError as error:
        raise ValueError(f"{paths[0]}: {error}") from None


def _listed(names: Any) -> str:
    return ", ".join(map(str, sorted(names))) or "none"


def finite(value: Any) -> Any:
    """A number as JSON has it: None for what is not finite."""
    return value if not isinstance(value, float) or math.isfinite(value) else None
