"""nanochat's own checkpoint folders: found, read and written; no torch is needed.

`<base dir>/<stage>_checkpoints/<tag>/` holds `model_<step>.pt`, `meta_<step>.json` and optimizer
files; `<base dir>/tokenizer/` holds `tokenizer.pkl` and `token_bytes.pt`. Published models often
have all of it in one folder. What is read is checked here, once, before anything is written.
"""

import contextlib
import dataclasses
import json
import logging
import os
import pathlib
import re
import tempfile
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np

from nanochat_jax.config import paths
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
    era: eras.Detected
    optimizer: dict[str, Any] | None
    position: dict[str, int] | None

    @property
    def params(self) -> dict[str, Any]:
        return from_nanochat(self.state)


def find(
    directory: pathlib.Path, source: str = "", tag: str = "", step: int | None = None
) -> Files:
    """The files of one step below a base directory of nanochat, or in a folder that holds them.

    `directory` may also be a model's file. The result's `source` is empty where no folder names it.

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
    models = _numbered(folder, MODEL)
    step = _choose(models, step, "step", "--step", folder)
    meta = folder / f"meta_{step:06d}.json"
    if not meta.exists():
        raise FileNotFoundError(f"{models[step]} has no {meta.name}, which says the model's shape, "
                                "beside it: fetch it from where the model came from")  # fmt: skip
    # A folder that was named by hand gives a tag only if it is named like one.
    tagged = folder != directory or re.match(r"d\d+", folder.name)
    places = (folder, folder / "tokenizer", folder.parent.parent / "tokenizer")
    return Files(
        source, folder.name if tagged else "", step, models[step], meta,
        _optimizer_files(folder, step), next((p for p in places if (p / PICKLE).exists()), None),
    )  # fmt: skip


def read(files: Files, *, weights_only: bool = False) -> Contents:
    """One step, its arrays views of the files; ValueError names a damaged or foreign file."""
    meta = read_meta(files.meta)
    state = _state_dict(files.model)
    shapes = {key: value.shape for key, value in state.items()}
    era, optimizer, position = eras.detect(shapes, meta), None, None
    if not weights_only:
        optimizer, position = _optimizer(files.optimizer, shapes), _position(meta)
    return Contents(state, meta, era, optimizer, position)


def read_meta(path: pathlib.Path) -> dict[str, Any]:
    """The meta file, numbers that are not finite as None."""
    try:
        # Python's own writer puts NaN and Infinity into JSON: a best loss before the first one.
        meta = json.loads(path.read_text("utf-8"), parse_constant=lambda _: None)
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not JSON ({error}); copy it again") from None
    if not isinstance(meta, dict) or not isinstance(meta.get("model_config"), dict):
        raise ValueError(f"{path} has no model_config; is it nanochat's meta file?")
    for name in ("user_config", "loop_state", "dataloader_state_dict"):
        if not isinstance(meta.get(name), dict | None):
            raise ValueError(f"{path}: {name} is {meta[name]!r}; expected an object, or nothing")
    return meta


def _position(meta: Mapping[str, Any]) -> dict[str, int] | None:
    """The place in the data of a meta file."""
    state = meta.get("dataloader_state_dict")
    if state is None:
        return None
    position = {"epoch": 1, **state}  # the first files with a position had no epoch in it
    wrong = position.keys() ^ {"epoch", "pq_idx", "rg_idx"}
    if wrong or any(type(value) is not int for value in position.values()):
        raise ValueError(
            f"dataloader_state_dict is {state}; expected whole numbers pq_idx, rg_idx and epoch. "
            "--weights-only leaves it and the optimizer"
        )
    return position


def read_tokenizer(folder: pathlib.Path) -> tuple[Tokenizer, str]:
    """The tokenizer and by which rule its `token_bytes.pt` counts: `corrected` or `old`.

    The old rule (until July 2026) decodes every token by itself and counts the bytes of the text: a
    lone byte of a character becomes U+FFFD and counts as three, so a bpb that used it is lower.
    Without the file the rule is called `unknown`. ValueError: files that are damaged, unsafe, or do
    not belong together.
    """
    fields = tiktoken_pickle.load(folder / PICKLE)
    tokenizer = Tokenizer(dict(fields.mergeable_ranks), fields.pat_str, dict(fields.special_tokens))
    if not (folder / BYTES).exists():
        return tokenizer, "unknown"
    table = np.asarray(torchfile.load(folder / BYTES))
    for rule in ("corrected", "old"):
        if np.array_equal(table, tokenizer.token_bytes(corrected=rule == "corrected")):
            return tokenizer, rule
    raise ValueError(
        f"{folder / BYTES} ({len(table)} ids) does not belong to {PICKLE} beside it "
        f"({tokenizer.get_vocab_size()} ids); copy both from the same run"
    )


def write(
    out: pathlib.Path, source: str, tag: str, step: int, state: Mapping[str, np.ndarray],
    meta: Mapping[str, Any], tokenizer: Tokenizer, rule: str = "corrected",
    optimizers: Sequence[Any] = (),
) -> pathlib.Path:  # fmt: skip
    """Writes one step where nanochat with `out` as base directory looks, and returns its folder.

    `optimizers`: what `optim_files` made, a file for each rank; `rule`: of the token bytes,
    `corrected` or `old`: see `read_tokenizer`.

    Raises:
        ValueError: that step, or another tokenizer, is there already.
        OSError: the disk is full; nothing half-written is left.
    """
    folder, meta_name = paths.checkpoints(out, source) / tag, f"meta_{step:06d}.json"
    trees = {f"model_{step:06d}.pt": dict(state)}
    for rank, optimizer in enumerate(optimizers):
        # A pair of optimizers is of the time of one file, later there was one of each rank.
        of_rank = "" if isinstance(optimizer, list) else f"_rank{rank}"
        trees[f"optim_{step:06d}{of_rank}.pt"] = optimizer
    for name in (*trees, meta_name):
        if (folder / name).exists():
            raise ValueError(f"{folder / name} exists; choose another --dir, or remove it")
    there = paths.tokenizer(out)
    has_one = (there / PICKLE).exists()
    if has_one and read_tokenizer(there)[0].hash != tokenizer.hash:
        raise ValueError(f"{there} holds another tokenizer; choose another --dir")
    out.mkdir(parents=True, exist_ok=True)
    try:
        # All of it lies on the disk before anything gets its name; the folder itself may hold
        # other steps, so it cannot be replaced as a whole.
        with tempfile.TemporaryDirectory(".part", f".{tag}.", out) as folder_name:
            part = pathlib.Path(folder_name)
            for name, tree in trees.items():
                torchfile.save(part / name, tree)
            (part / meta_name).write_text(json.dumps(dict(meta), indent=2), "utf-8")
            if not has_one:
                write_tokenizer(part / "tokenizer", tokenizer, rule)
                _move(part / "tokenizer", there, (BYTES, PICKLE))
            _move(part, folder, (*trees, meta_name))
    finally:
        with contextlib.suppress(OSError):  # it is not empty: something was written
            out.rmdir()
    return folder


def _move(source: pathlib.Path, target: pathlib.Path, names: Sequence[str]) -> None:
    target.mkdir(parents=True, exist_ok=True)
    for name in names:
        os.replace(source / name, target / name)


def write_tokenizer(folder: pathlib.Path, tokenizer: Tokenizer, rule: str = "corrected") -> None:
    """`tokenizer.pkl` and `token_bytes.pt` as nanochat has them, in a new folder."""
    folder.mkdir(parents=True, exist_ok=True)
    table = np.asarray(tokenizer.token_bytes(corrected=rule != "old"), np.int32)
    torchfile.save(folder / BYTES, table)
    parts = (tokenizer.pattern, tokenizer.mergeable_ranks, tokenizer.special_tokens)
    tiktoken_pickle.save(folder / PICKLE, tiktoken_pickle.EncodingFields("rustbpe", *parts))


def _folder(directory: pathlib.Path, source: str, tag: str) -> tuple[pathlib.Path, str]:
    """The folder that holds the model files, and the stage they belong to."""
    if _numbered(directory, MODEL):
        if tag:
            raise ValueError(f"{directory} holds one model, so --model-tag has nothing to choose; "
                             f"to name it type --as {tag}")  # fmt: skip
        by_name = {name: stage for stage, name in CHECKPOINTS.items()}
        return directory, source or by_name.get(directory.parent.name, "")
    folders = {(stage, folder.name): folder
               for stage in CHECKPOINTS for folder in paths.checkpoints(directory, stage).glob("*")
               if _numbered(folder, MODEL)}  # fmt: skip
    if not folders:
        stages = "/, ".join(CHECKPOINTS.values())
        raise FileNotFoundError(f"no nanochat checkpoint in {directory}: neither model_<step>.pt "
                                f"nor {stages}/ with a tag below")  # fmt: skip
    stages = {stage for stage, _ in folders}
    source = _choose(stages, source or None, "stage", "--source", directory)
    tags = {tag for stage, tag in folders if stage == source}
    tag = _choose(tags, tag or None, "tag", "--model-tag", paths.checkpoints(directory, source))
    return folders[source, tag], source


def _choose(found: Collection[Any], wanted: Any, what: str, flag: str, where: pathlib.Path) -> Any:
    """What was wanted, or (None) the only one; else an error that names what there is."""
    if wanted is not None and wanted not in found:
        raise FileNotFoundError(f"no {what} {wanted} in {where}; found {_listed(found)}")
    if wanted is None and len(found) > 1:
        thing = "file" if what == "step" else "folder"
        raise ValueError(f"{where} has several {what}s ({_listed(found)}); choose with {flag}, "
                         f"or name the {thing}")  # fmt: skip
    return next(iter(found)) if wanted is None else wanted


def _numbered(folder: pathlib.Path, pattern: re.Pattern[str]) -> dict[int, pathlib.Path]:
    """The files of a pattern by the number in their names; none where there is no folder."""
    names = folder.iterdir() if folder.is_dir() else ()
    return {int(m[1]): path for path in names if (m := pattern.fullmatch(path.name))}


def _optimizer_files(folder: pathlib.Path, step: int) -> tuple[pathlib.Path, ...]:
    """One file, or those of ranks 0, 1, ... in order."""
    ranks = _numbered(folder, re.compile(rf"optim_{step:06d}_rank(\d+)\.pt"))
    if gaps := set(range(max(ranks, default=-1) + 1)) - ranks.keys():
        raise ValueError(
            f"{folder} has optimizer files of ranks {_listed(ranks)} but not of {_listed(gaps)}; "
            "copy them too, or leave the optimizer with --weights-only"
        )
    single = folder / f"optim_{step:06d}.pt"
    return tuple(ranks[r] for r in sorted(ranks)) or ((single,) if single.exists() else ())


def _state_dict(path: pathlib.Path) -> dict[str, np.ndarray]:
    state = torchfile.load(path)
    if not isinstance(state, Mapping):
        raise ValueError(f"{path} is not a state dict: no dict of tensors")
    named = lambda key, value: type(key) is str and isinstance(value, np.ndarray)
    if others := [repr(key) for key, value in state.items() if not named(key, value)]:
        raise ValueError(f"{path} is not a state dict: no named tensor under {_listed(others)}")
    return eras.stripped(state)


def _optimizer(files: Sequence[pathlib.Path], shapes: optim_files.Shapes) -> dict[str, Any] | None:
    """Our optimizer state of the files; None where there are none or nanochat saved only a part."""
    if not files:
        return None
    trees = [torchfile.load(file) for file in files]
    try:
        return optim_files.read(trees, shapes)
    except optim_files.Incomplete as error:
        # Until 13 November 2025 (c6abcdf) rank 0 alone wrote a file, with its own share in it: the
        # rest is lost, and a model of that time is worth having without.
        if "_rank" in files[0].name:
            raise ValueError(f"{files[0].parent}: {error}; copy the files of all ranks, or leave "
                             "the optimizer with --weights-only") from None  # fmt: skip
        log.warning("%s holds rank 0's part alone (%s): the optimizer is left", files[0], error)
        return None
    except ValueError as error:
        raise ValueError(f"{files[0]}: {error}") from None


def _listed(names: Any) -> str:
    return ", ".join(map(str, sorted(names))) or "none"
