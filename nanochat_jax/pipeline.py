"""The stages by name: how each is configured, prepared, run and written into the report.

JAX is imported only where something runs: `--help` and a wrong flag answer at once.
"""

import logging
import pathlib
import time
from collections.abc import Mapping, Sequence
from typing import Any

from nanochat_jax import devices
from nanochat_jax.config import flags, help
from nanochat_jax.config.errors import nearest, start_logging
from nanochat_jax.config.evals import Contamination
from nanochat_jax.config.paths import base_dir, compilation_cache, writable_base_dir
from nanochat_jax.config.program import Eval, Processes
from nanochat_jax.config.resolve import CONFIGS, Layers, read, settle
from nanochat_jax.config.stages import STAGES, Stage, TokenizerTrain, rows_per_step
from nanochat_jax.config.typed import HELP, unbarred
from nanochat_jax.config.values import fields
from nanochat_jax.hosts import group
from nanochat_jax.hosts.start import join
from nanochat_jax.results import DATA, Section

log = logging.getLogger(__name__)
TRAIN_HELP = """\
--stage may be left out before the name.
flags of one:  python -m scripts.train --stage NAME --help
all in order:  python -m scripts.speedrun"""


def split_stage(argv: Sequence[str]) -> tuple[str, list[str]]:
    """The stage of `--stage NAME`, or of a first word NAME, and the other arguments.

    Raises:
        ValueError: no stage that exists.
        SystemExit: after `--help` without a stage (0).
    """
    stage, rest = flags.take(unbarred(argv), "stage")
    if stage is None and rest and not rest[0].startswith("-"):
        stage, *rest = rest
    if stage in STAGES:
        return stage, rest
    if stage is None and HELP & set(rest):
        said = "One stage of training. In the order of a model's life:"
        print(help.of_choices(STAGES, "scripts.train --stage NAME [flags]", said, TRAIN_HELP))
        raise SystemExit(0)
    if stage:
        raise ValueError(f"--stage is {stage!r}{nearest(stage, list(STAGES))}")
    raise ValueError(f"no stage given; type python -m scripts.train --stage {'|'.join(STAGES)}")


def default_file() -> pathlib.Path | None:
    """`configs/cpu.toml` on a CPU, `configs/d20.toml` on accelerators; None if not shipped."""
    path = CONFIGS / ("cpu.toml" if devices.machine_kind() == "cpu" else "d20.toml")
    return path if path.exists() else None


def layers_of(section: str, argv: Sequence[str] = (), **given: Any) -> Layers:
    """What files and flags say of a program; `given` as of `resolve.read`."""
    return read(section, argv, default_file=default_file(), **given)


def configure(
    section: str, argv: Sequence[str] = (), *, values: Mapping[str, Any] | None = None,
    prog: str | None = None,
) -> Any:  # fmt: skip
    """The config of a program: finds the checkpoint that it depends on, and settles it.

    With `--resume` that is the stage's own last one, whose config stands in for file and recipe;
    else the one that the stage starts from. Without a checkpoint files and flags are all there is:
    the stage itself says what is missing.

    Raises:
        ValueError: wrong settings, or a damaged checkpoint.
    """
    layers = layers_of(section, argv, values=values, prog=prog)
    if prog:  # a person waits: JAX takes seconds to load, and a step to compile
        start_logging()
        log.info("%s: settings of %s; loading JAX ...", section, layers.path or "the defaults")
    config = layers.config()
    if not isinstance(config, Stage):
        return config
    from nanochat_jax.train import origin

    try:
        start = origin.find(section, config, base_dir())
    except FileNotFoundError:
        # Not an error yet: the speedrun configures every stage before the first one has run.
        return config
    if start.resumed is not None:
        return settle(layers, saved=start.resumed.meta.get("config") or None)
    return settle(layers, parent=start.source.meta if start.source else None)


def prepare_devices(config: Stage | Eval | TokenizerTrain) -> str:
    """Sets JAX up for a config, before JAX first looks, in this process and those that it joins;
    returns the kind of device.

    On a CPU a training stage gets one virtual device a core, as far as its rows go round; programs
    that score keep one device with all its threads.
    """
    asked = Processes(**{name: vars(config)[name] for name in fields(Processes)})
    processes = join(asked, writable_base_dir())
    if isinstance(config, TokenizerTrain):
        return "cpu"
    virtual = None
    if isinstance(config, Stage):
        rows = rows_per_step(config), config.device_batch_size
        virtual = devices.virtual_devices(*rows, processes)
    cache = compilation_cache(base_dir())
    return devices.prepare(
        config.device_type, config.mesh, config.simulate_devices, virtual=virtual, cache=cache,
        processes=processes,
    )  # fmt: skip


def run(stage: str, config: Stage | TokenizerTrain, *, alone: bool = True) -> None:
    """Runs one stage and writes its section of the report; `alone` as of `stages.run`."""
    from nanochat_jax import report
    from nanochat_jax.data import shards
    from nanochat_jax.train import stages

    start_logging()
    began = time.monotonic()
    # One process trains a tokenizer, and what others need of it lies on disk.
    if group.chief() or not isinstance(config, TokenizerTrain):
        section = stages.run(stage, config, alone=alone)
    if group.chief():
        # Twice: more shards may have come since the tokenizer was trained on the first of them.
        if stage in ("tokenizer", "base"):
            data = shards.describe(shards.find_shards(base_dir()))
            report.write(base_dir(), Section(DATA, figures=data))
        report.write(base_dir(), section, time.monotonic() - began)
    group.wait()


def evaluate(config: Eval) -> None:
    """Scores a stage and writes its section of the report."""
    from nanochat_jax import report
    from nanochat_jax.evals import run as evals

    start_logging()
    began = time.monotonic()
    section = evals.run(config, base_dir())
    if group.chief():
        log.info("%s", report.score_lines(section.scores))
        if section.checks:
            log.info("%s", report.check_lines(section.checks))
        report.write(base_dir(), section, time.monotonic() - began)
    group.wait()


def contamination(command: Contamination) -> str:
    """Looks for a model's evaluation in its training text, writes the section of the report, and
    returns it as Markdown."""
    from nanochat_jax import report
    from nanochat_jax.train import contamination as search

    start_logging()
    began = time.monotonic()
    section = search.run(command, base_dir())
    report.write(base_dir(), section, time.monotonic() - began)
    return report.section(section)
