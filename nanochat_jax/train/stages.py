"""Every stage by its name: running it, and whether it is done."""

import contextlib
import dataclasses
import functools
import logging
import pathlib
import traceback
from collections.abc import Mapping, Sequence
from typing import Any

import jax

from nanochat_jax import locks, sharding
from nanochat_jax.checkpoint import store, whole
from nanochat_jax.checkpoint.aside import Aside
from nanochat_jax.config.paths import base_dir
from nanochat_jax.config.stages import BaseTrain, Stage, TokenizerTrain
from nanochat_jax.config.values import completed, flatten
from nanochat_jax.data import ledger
from nanochat_jax.hosts import group
from nanochat_jax.results import TRAINING, Section
from nanochat_jax.stopping import Interrupted
from nanochat_jax.train import base, chat, loop, memory, metrics, origin, setup, telling, tokenizer

log = logging.getLogger(__name__)


def run(stage: str, config: Stage | TokenizerTrain, *, alone: bool = True) -> Section:
    """Trains a stage to its end and returns what the report shows of it.

    Args:
        alone: no other stage follows by itself, so it is told what to type next.

    Raises:
        FileNotFoundError: no data, no tokenizer, or no checkpoint to begin at.
        ValueError: settings that do not fit together, or a step that does not fit into memory; the
            message says what would.
        Interrupted: after Ctrl-C or SIGTERM, with a checkpoint saved.
    """
    root = base_dir()
    if isinstance(config, TokenizerTrain):
        section = tokenizer.run(config, root)
        if alone:
            log.info("next: python -m scripts.train --stage base")
        return section
    prepared = setup.prepare(stage, config, root)
    log.info("%s", telling.opening(prepared))
    moved: list[Aside | None] = []  # as soon as the run has begun
    try:
        done = _trained(prepared, moved)
    except Interrupted:
        log.info("%s", telling.stopped(prepared, moved))
        _tell_moved(moved)
        raise
    except jax.errors.JaxRuntimeError as error:
        # Smaller batches are tried by compiling them, which several processes do together; and the
        # memory of the others may have sufficed.
        if not memory.exhausted(error) or group.count() > 1:
            raise
        # The frames hold the run's arrays, and what is compiled now is timed on the same device.
        traceback.clear_frames(error.__traceback__)
        raise ValueError(setup.does_not_fit(prepared, error, bool(moved))) from None
    if alone:
        log.info("%s", telling.ended(prepared))
    _tell_moved(moved)
    figures = prepared.curriculum.figures(common_figures(done))
    return Section(TRAINING[stage], flatten(prepared.config), figures)


def _trained(run: setup.Run, moved: list[Aside | None]) -> loop.Loop:
    """The run's loop, at its end; adds what was moved out of its way to `moved`.

    Raises:
        ValueError: another run has the directory.
    """
    with locks.held(run.directory) if group.chief() else contextlib.nullcontext():
        # First: the checkpoint that this run begins with may lie in the folder that is moved.
        state = run.first_state()
        room = functools.partial(origin.make_room, run.start, run.directory)
        return loop.train(run, state, lambda: moved.append(group.first(room)))


def _tell_moved(moved: Sequence[Aside | None]) -> None:
    for each in filter(None, moved):
        log.info("%s", telling.before_it(each))


def check_settings(config: BaseTrain, vocab_size: int) -> None:
    """Raises ValueError for what base training would refuse of its settings, before its text is
    fetched or a tokenizer trained. JAX's devices must be set up."""
    metrics.check_run_name(config.run)
    cfg, mesh = base.model_config(config, vocab_size), sharding.make_mesh(config.mesh or None)
    setup.passes(config, cfg, mesh)


def status(
    stage: str, config: Stage | TokenizerTrain, root: pathlib.Path
) -> tuple[dict[str, Any], dict[str, Any] | None, bool]:
    """(fingerprint this config would leave, the one on disk or None, whether that is final).

    Damaged steps are set aside first; raises as `whole.set_damaged_aside`.
    """
    if isinstance(config, TokenizerTrain):
        done = completed(TokenizerTrain, tokenizer.done(root))
        return tokenizer.fingerprint(config, root), done, True
    fresh = dataclasses.replace(config, resume=False, resume_from_step=-1)
    start = origin.find(stage, fresh, root)
    want = origin.fingerprint(config, start, start.tokenizer(root))
    folder = origin.directory(stage, start.tag(config), root)
    whole.set_damaged_aside(folder)
    if not store.steps(folder):
        return want, None, False
    meta = store.find(folder).meta
    # A run killed in its last evaluations has its weights, and evaluates again.
    ended = bool(meta.get("final")) and meta.get("loop", {}).get("evaluated", True)
    have = completed(type(config), meta.get("fingerprint"))
    if have is not None and origin.PARENT_DATA not in have:
        want.pop(origin.PARENT_DATA, None)
    if ended and have is not None and meta.get("data"):
        now, then = new_data(config, root, meta["data"])
        return want | now, have | then, True
    return want, have, ended


def new_data(
    config: Stage, root: pathlib.Path, recorded: Mapping[str, Any]
) -> tuple[dict[str, str], dict[str, str]]:
    """Data that a finished stage would read now and did not read then, and what it read instead."""
    if isinstance(config, BaseTrain):
        return ledger.new_shards(root, recorded)
    try:
        return ledger.new_files(chat.files(config, root), root, recorded)
    except FileNotFoundError:  # what it was trained on may be thrown away
        return {}, {}


def common_figures(done: loop.Loop) -> dict[str, Any]:
    """What the report shows of a run of any stage."""
    found = {"best": done.progress.best_bpb, **done.scores}
    names = {
        "best": "Minimum validation bpb", "val/bpb": "Final validation bpb",
        "core_metric": "CORE metric estimate", "core_tasks": "CORE tasks",
    }  # fmt: skip
    return (
        {title: found[key] for key, title in names.items() if found.get(key) is not None}
        | {
            "Number of iterations": done.step,
            "Number of training tokens": done.progress.tokens,
            "Total training time": f"{done.progress.train_s / 60:.2f}m",
            "Peak memory usage": f"{peak_memory_mib():.2f}MiB",
        }
        | ({"Evaluations that failed": done.progress.failed} if done.progress.failed else {})
        | ({"Steps left out": done.progress.skipped} if done.progress.skipped else {})
    )


def peak_memory_mib() -> float:
    """Most device memory in use so far; on a CPU, of this process."""
    stats = jax.local_devices()[0].memory_stats() or {}
    if "peak_bytes_in_use" in stats:
        return stats["peak_bytes_in_use"] / 2**20
    import resource  # not on every system

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
