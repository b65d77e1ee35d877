"""Models to and from other programs: what `scripts.convert` runs.

The files are read and written in `checkpoint/`; here is what needs the rest of the house as well:
which settings a run had, what its optimizer's numbers were, and which candidate a text prefers.
"""

import dataclasses
import logging
import pathlib
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from nanochat_jax.checkpoint import compare as comparing
from nanochat_jax.checkpoint import (
    eras,
    find_checkpoint,
    huggingface,
    imported,
    load_tokenizer,
    nanochat,
    optim_files,
    store,
)
from nanochat_jax.checkpoint.names import to_nanochat
from nanochat_jax.config import load as config_load
from nanochat_jax.config.convert import Compare, Export, Import
from nanochat_jax.config.gpt import GPTConfig
from nanochat_jax.config.stages import CHECKPOINT_DIRS, STAGES, base_dir
from nanochat_jax.evals.bpb import bits_per_byte
from nanochat_jax.models.gpt import Model
from nanochat_jax.tokenizer import Tokenizer
from nanochat_jax.train import scaling
from nanochat_jax.train.optimizer import adam_group
from nanochat_jax.train.schedules import make_schedule

log = logging.getLogger(__name__)

Lines = list[str]

# By what rule the token bytes beside a tokenizer count.
RULES = {
    "corrected": "its token bytes, and so a recorded bpb, follow the corrected rule",
    "old": "its token bytes, and so a recorded bpb, follow the old rule (a bpb of ours is higher)",
    "unknown": "no token_bytes.pt beside it tells which rule a recorded bpb follows",
}

# nanochat's own flags of base training, both eras: what its meta file calls `user_config`.
USER_CONFIG = (
    "run device_type depth aspect_ratio head_dim max_seq_len window_pattern num_iterations "
    "target_flops target_param_data_ratio device_batch_size total_batch_size embedding_lr "
    "unembedding_lr weight_decay matrix_lr scalar_lr grad_clip warmup_ratio warmup_steps "
    "warmdown_ratio final_lr_frac init_lr_frac num_epochs target_examples_per_step eval_every "
    "eval_tokens eval_steps core_metric_every core_metric_max_per_task sample_every save_every "
    "model_tag"
).split()


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
            f"add --source {'|'.join(CHECKPOINT_DIRS)}"
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


def export_model(command: Export) -> tuple[pathlib.Path, Lines]:
    """Exports one model; returns the folder written and what to know about it.

    Raises:
        FileNotFoundError: no such checkpoint; the message names the command that makes it.
        ValueError: the target exists, or the format cannot express the model.
    """
    root, out = base_dir(), pathlib.Path(command.dir).expanduser()
    step = command.step if command.step >= 0 else None
    saved = find_checkpoint(command.source, command.model_tag or None, step, root)
    store.verify(saved)
    cfg, tokenizer = GPTConfig(**saved.meta["model_config"]), load_tokenizer(saved, root)
    params = jax.tree.map(np.asarray, saved.params())
    if command.format == "huggingface":
        folder = huggingface.export(out, cfg, params, tokenizer, lossy=command.lossy)
        return folder, ["load it with transformers.AutoModelForCausalLM.from_pretrained"]
    optimizer, why_not = None, "left out (--no-optimizer)"
    if command.optimizer:
        optimizer, why_not = optimizer_file(saved, cfg, params)
    folder = nanochat.write(
        out, command.source, saved.path.parent.name, saved.step, to_nanochat(params),
        nanochat_meta(saved, cfg, command.source), tokenizer,
        rule=_origin(saved).get("token_bytes") or ("old" if _is_classic(cfg) else "corrected"),
        optimizer=optimizer,
    )  # fmt: skip
    lines = [f"the optimizer's state: {'written' if optimizer is not None else why_not}"]
    return folder, [*lines, f"nanochat takes {out} as its base directory ($NANOCHAT_BASE_DIR)"]


def optimizer_file(saved: store.Saved, cfg: GPTConfig, params: Any) -> tuple[Any, str]:
    """nanochat's optimizer file of a checkpoint, or None and the reason."""
    if not saved.has_optimizer:
        return None, "the checkpoint has none"
    stage = saved.meta["stage"]
    if stage not in STAGES or not saved.meta.get("config"):
        return None, "the run's settings are not known"
    state = saved.optimizer(_plain_like(saved))
    config = config_load.build(STAGES[stage], saved.meta["config"])
    shapes = {key: value.shape for key, value in to_nanochat(params).items()}
    numbers, layout = rates(cfg, config, saved.step)
    return optim_files.write(state, shapes, layout, numbers), ""


def _plain_like(saved: store.Saved) -> Any:
    """The optimizer state's own shapes, on one device."""
    import orbax.checkpoint as ocp

    device = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    with ocp.StandardCheckpointer() as reader:
        tree = reader.metadata((saved.path / "optimizer").absolute()).item_metadata.tree
    return jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=device), tree)


def rates(cfg: GPTConfig, config: Any, step: int) -> tuple[optim_files.Rates, optim_files.Layout]:
    """The numbers of the optimizer's groups after `step` steps, and which layout they are in."""
    optim, steps = config.optim, max(config.num_iterations, step)
    if hasattr(config, "target_param_data_ratio"):
        plan = scaling.plan(cfg, config)
        optim, steps = plan.optim, max(plan.num_iterations, step)
    with jax.enable_x64(True):  # a file's numbers are Python's
        hyper = jax.tree.map(float, make_schedule(optim, steps)(max(step - 1, 0), 1.0))
    single = optim.muon_beta2 > 0

    def adam(key: str) -> dict[str, Any]:
        group = adam_group("/".join(_path(key)), optim, cfg.n_embd)
        lr = group.lr * config.init_lr_frac
        betas = [group.beta1, group.beta2] if single else (group.beta1, group.beta2)
        return dict(
            lr=lr * hyper.lr_multiplier, betas=betas, eps=optim.adam_eps,
            weight_decay=group.weight_decay, initial_lr=lr,
        )  # fmt: skip

    lr = optim.matrix_lr * config.init_lr_frac
    muon = dict(lr=lr * hyper.lr_multiplier, momentum=hyper.momentum)
    if single:
        muon |= dict(ns_steps=optim.muon_steps, beta2=optim.muon_beta2)
        muon |= dict(weight_decay=hyper.weight_decay, initial_lr=lr)
    else:
        muon |= dict(nesterov=True, ns_steps=optim.muon_steps, initial_lr=lr)
    return optim_files.Rates(adam, muon), "single" if single else "pair"


def _path(key: str) -> list[str]:
    from nanochat_jax.checkpoint.names import path_of

    return path_of(key).split("/")


def nanochat_meta(saved: store.Saved, cfg: GPTConfig, source: str) -> dict[str, Any]:
    """nanochat's meta file of a checkpoint of ours."""
    meta, origin = saved.meta, _origin(saved)
    shape = {name: getattr(cfg, name) for name in eras.SHAPE}
    if not _is_classic(cfg):
        shape["window_pattern"] = cfg.window_pattern
    own = {k: v for k, v in (meta.get("config") or {}).items() if k in USER_CONFIG}
    config = origin.get("user_config") or own
    out = {
        "step": saved.step,
        "val_bpb": meta.get("metrics", {}).get("val/bpb"),
        "model_config": shape,
        "user_config": config,
    }
    if source == "base":
        out |= {k: own[k] for k in ("device_batch_size", "max_seq_len") if k in own}
    if source == "base" and not _is_classic(cfg):
        loop = meta.get("loop") or {}
        out["total_batch_size"] = own.get("total_batch_size")
        position = _position(saved.loader)
        if position:
            out["dataloader_state_dict"] = position
        best = loop.get("best_bpb")
        out["loop_state"] = {
            "min_val_bpb": float("inf") if best is None else best,
            "smooth_train_loss": loop.get("smooth_loss") or 0,
            "total_training_time": loop.get("train_s") or 0,
        }
    return out


def _position(loader: Any) -> dict[str, int] | None:
    """Where nanochat would say the loader stands: the row group read last, of rank 0."""
    if not loader:
        return None
    if "pq_idx" in loader:
        return dict(loader)
    at = loader["streams"][0]
    epoch, file, group, _ = at.get("last") or at["at"]
    return {"pq_idx": file, "rg_idx": group, "epoch": epoch}


def _is_classic(cfg: GPTConfig) -> bool:
    """Whether nanochat of October 2025 can hold the model."""
    return not (cfg.residual_scalars or cfg.value_embeds or cfg.smear or cfg.backout)


def _origin(saved: store.Saved) -> dict[str, Any]:
    return saved.meta.get("imported") or {}


def compare(command: Compare) -> Lines:
    """A table of differences: parameters, what each layer gives, logits."""
    a, b = open_checkpoint(command.a), open_checkpoint(command.b)
    ids = comparing.read_ids(command.ids) if command.ids else None
    return comparing.table(a, b, ids, command.prompt)


def open_checkpoint(name: str) -> comparing.Side:
    """A checkpoint in any format: a stage of ours, or a folder.

    Raises:
        FileNotFoundError: neither; the message says what was looked for.
    """
    path = pathlib.Path(name).expanduser()
    if name in CHECKPOINT_DIRS and not path.is_dir():
        return _own(find_checkpoint(name, None, None, base_dir()))
    if (path / "config.json").exists():
        found = huggingface.load(path)
        return comparing.Side(name, found.cfg, found.params, found.tokenizer)
    if path.is_dir() and (store.steps(path) or (path / "meta.json").exists()):
        return _own(store.find(path))
    files = nanochat.find(path)
    contents = nanochat.read(files, weights_only=True)
    tokenizer = nanochat.read_tokenizer(files.tokenizer)[0] if files.tokenizer else None
    return comparing.Side(name, contents.found.config, contents.params, tokenizer)


def _own(saved: store.Saved) -> comparing.Side:
    store.verify(saved)
    cfg = GPTConfig(**saved.meta["model_config"])
    root = saved.path.parents[2]
    return comparing.Side(str(saved.path), cfg, saved.params(), load_tokenizer(saved, root))
