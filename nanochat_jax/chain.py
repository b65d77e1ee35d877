"""The stages by name: how each is configured, prepared, run and written into the report."""

import dataclasses
import importlib
import logging
import pathlib
from collections.abc import Sequence
from typing import Any

from nanochat_jax import devices
from nanochat_jax.config import load as config_load
from nanochat_jax.config.paths import CHECKPOINTS, base_dir
from nanochat_jax.config.stages import SECTIONS, STAGES, TokenizerTrain, recipes_of
from nanochat_jax.config.steps import rows_per_step

log = logging.getLogger(__name__)

CONFIGS = pathlib.Path(__file__).resolve().parents[1] / "configs"


def split_stage(argv: Sequence[str]) -> tuple[str, list[str]]:
    """`--stage NAME` and the other arguments.

    Raises:
        ValueError: no stage, or one that does not exist.
    """
    rest, stage = [], None
    words = iter(argv)
    for word in words:
        if word == "--stage":
            stage = next(words, None)
        elif word.startswith("--stage="):
            stage = word.split("=", 1)[1]
        else:
            rest.append(word)
    if stage in STAGES:
        return stage, rest
    if {"-h", "--help"} & set(rest) and stage is None:
        raise ValueError(f"which stage? python -m scripts.train --stage {'|'.join(STAGES)} --help")
    raise ValueError(
        f"--stage is {stage!r}{config_load.nearest(str(stage), list(STAGES))}"
        if stage
        else f"no stage given; type python -m scripts.train --stage {'|'.join(STAGES)}"
    )


def default_file() -> pathlib.Path | None:
    """`configs/cpu.toml` on a CPU, `configs/d20.toml` on accelerators; None if not shipped."""
    name = "cpu.toml" if devices.machine_kind() == "cpu" else "d20.toml"
    path = CONFIGS / name
    return path if path.exists() else None


def configure(section: str, argv: Sequence[str], *, prog: str | None = None) -> Any:
    """The resolved config of a program.

    With `--resume` over what its checkpoint ran with; mid and sft (and the recipe of rl) over what
    the checkpoint they start from did; base with `--init` over what the shape of that checkpoint
    says, and without the default file.
    """
    make = lambda **over: config_load.load(
        SECTIONS[section],
        argv,
        section=section,
        sections=SECTIONS,
        recipes=recipes_of(section),
        prog=prog,
        description=SECTIONS[section].__doc__,
        **{"default_file": default_file(), **over},
    )
    config = make()
    if section in ("mid", "sft", "rl") and not resuming(config):
        from nanochat_jax.train import heritage

        return heritage.settled(section, make, base_dir())
    if section == "base" and config.init:
        return make(default_file=None, inherited=inherited(config.init))
    if not resuming(config):
        return config
    last = last_checkpoint(section, config)
    return make(saved=last.meta["config"]) if last and last.meta.get("config") else config


def resuming(config: Any) -> bool:
    """Whether a config asks to go on where a checkpoint of its own stage stands."""
    return getattr(config, "resume", False) or getattr(config, "resume_from_step", -1) >= 0


def inherited(init: str) -> dict[str, Any]:
    """The dials of the model in a checkpoint directory: what rates are scaled by."""
    from nanochat_jax.checkpoint import store
    from nanochat_jax.config.gpt import GPTConfig

    meta = store.find(pathlib.Path(init).expanduser()).meta
    cfg, config = GPTConfig(**meta["model_config"]), meta.get("config") or {}
    dials = dict(depth=cfg.n_layer, aspect_ratio=max(1, cfg.n_embd // cfg.n_layer))
    dials |= dict(head_dim=cfg.head_dim, max_seq_len=cfg.sequence_len)
    dials |= dict(window_pattern=cfg.window_pattern, reference_kv_heads=cfg.n_kv_head)
    return dials | {name: config[name] for name in ("aspect_ratio", "head_dim") if name in config}


def last_checkpoint(stage: str, config: Any) -> Any:
    """What `--resume` would continue, None when there is nothing."""
    from nanochat_jax.checkpoint import guess_tag, store

    folder = base_dir() / CHECKPOINTS[stage]
    before = base_dir() / CHECKPOINTS[getattr(config, "source", "base")]
    tag = config.model_tag or (f"d{config.depth}" if stage == "base" else guess_tag(before))
    step = getattr(config, "resume_from_step", -1)
    if not tag or not store.steps(folder / tag):
        return None
    return store.find(folder / tag, step if step >= 0 else None)


def prepare_devices(config: Any) -> str:
    """Sets JAX up for a training config, before JAX first looks; returns the kind of device."""
    if isinstance(config, TokenizerTrain):
        return "cpu"
    return devices.prepare(
        config.device_type,
        config.mesh,
        config.simulate_devices,
        virtual=devices.virtual_devices(rows_per_step(config), config.device_batch_size),
        cache=base_dir() / "jax_cache",
    )


def run(stage: str, config: Any) -> None:
    """Runs one stage and writes its section of the report."""
    from nanochat_jax import report
    from nanochat_jax.data import shards

    start_logging()
    title, items = _module(stage).run(config)
    if stage == "tokenizer":
        report.log(base_dir(), "Data", [shards.describe(shards.find_shards(base_dir()))])
    report.log(base_dir(), title, items)


def evaluate(config: Any) -> None:
    """Scores a stage and writes its section of the report."""
    from nanochat_jax import report
    from nanochat_jax.evals import run as evals

    start_logging()
    title, scores, items = evals.run(config, base_dir())
    log.info("%s", report.score_lines(scores))
    report.log(base_dir(), title, [report.score_lines(scores), *items])


def prepare_for_scoring(config: Any) -> str:
    """Sets JAX up for one process that answers or scores: one CPU device with all its threads."""
    return devices.prepare(
        config.device_type, config.mesh, config.simulate_devices, cache=base_dir() / "jax_cache"
    )


def status(stage: str, config: Any) -> tuple[dict[str, Any], dict[str, Any] | None, bool]:
    """(fingerprint this config would leave, the one on disk or None, whether that is final)."""
    if stage == "tokenizer":
        module = _module(stage)
        return module.fingerprint(config), module.done(base_dir()), True
    from nanochat_jax.train import stage as stages

    want = stages.fingerprint(stage, config, base_dir())
    last = last_checkpoint(stage, config)
    if last is None:
        return want, None, False
    return want, last.meta.get("fingerprint"), bool(last.meta.get("final"))


def resumed(config: Any) -> Any:
    """The config of a run that goes on at its last checkpoint."""
    return dataclasses.replace(config, resume=True)


def start_logging() -> None:
    """Messages as plain lines; libraries only when something is wrong. Process 0 speaks."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    for noisy in ("absl", "orbax", "jax", "grain", "httpx"):
        logging.getLogger(noisy).setLevel(logging.WARNING)


def _module(stage: str) -> Any:
    return importlib.import_module(f"nanochat_jax.train.{stage}")
