"""What a person is told of a run: what it is before it begins, what to type when it has ended."""

import pathlib
import shlex
import sys
from collections.abc import Sequence

import jax

from nanochat_jax.checkpoint import store
from nanochat_jax.checkpoint.aside import Aside
from nanochat_jax.config import flags
from nanochat_jax.config.gpt import param_counts
from nanochat_jax.config.paths import CHECKPOINTS
from nanochat_jax.config.program import LOCAL_RUN
from nanochat_jax.train import setup
from nanochat_jax.train.setup import Run

# The stage after each, as the demo and the speedrun go; `current` goes from base to sft.
NEXT = {"base": "mid", "mid": "sft"}


def opening(run: Run) -> str:
    """The run in a line for each thing that one would ask."""
    told = {
        "model": _model(run),
        "begins": _begins(run),
        "data": run.curriculum.summary,
        "steps": _steps(run),
        "batch": _batch(run),
        "devices": _devices(run),
        "saved in": f"{run.directory} (every {run.config.save_every}, keeps {run.config.keep})"
        if run.config.save_every != -1
        else f"{run.directory} (at the end alone)",
    }
    if run.config.run != LOCAL_RUN:
        told["wandb"] = run.config.run
    lines = [f"  {name:9} {line}" for name, line in told.items()]
    return "\n".join([f"{run.stage}/{run.directory.name}", *lines])


def stopped(run: Run, moved: Sequence[Aside | None]) -> str:
    """After Ctrl-C: the command to go on.

    Args:
        moved: what the run moved out of its way, or that there was nothing; empty: it had not come
            to that, and what is in the directory may be an earlier run's.
    """
    steps = store.steps(run.directory) if moved else []
    if steps:
        return f"step {steps[-1]} is saved; to go on type: {flags.to_go_on(run.directory.name)}"
    unchanged = "" if any(moved) else ", and nothing on disk has changed"
    what = "go on" if run.start.resumed is not None else "begin"
    return f"no step was done{unchanged}; to {what} type the same again"


def ended(run: Run) -> str:
    """At the end: what to do with the model."""
    tag = flags.tagged(run.directory)
    after = NEXT.get(run.stage)
    if after and run.config.recipe == "current":
        after = "sft"
    told = {
        "saved in": str(run.directory),
        "talk to it": f"python -m scripts.chat_cli -i {run.stage}{tag}",
        "scores": f"python -m scripts.eval -i {run.stage}{tag}",
    }
    if after:
        file = flags.take(sys.orig_argv, "config")[0]
        same = f" --config {shlex.quote(file)}" if file else ""
        told["next"] = f"python -m scripts.train --stage {after}{same}{tag}"
    lines = [f"  {name:11} {line}" for name, line in told.items()]
    return "\n".join([f"{run.stage}/{run.directory.name} is trained", *lines])


def before_it(moved: Aside) -> str:
    """What lay in a run's place, told again when the first line has long gone by."""
    what = "the run before it" if moved.after is None else f"what came after step {moved.after}"
    return f"  {what} is {moved.name}; back with: {moved.back}"


def _model(run: Run) -> str:
    cfg = run.trainer.gpt.cfg
    return (
        f"{param_counts(cfg)['total']:,} parameters: {cfg.n_layer} layers, width {cfg.n_embd}, "
        f"context {cfg.sequence_len}, vocabulary {cfg.vocab_size:,}"
    )


def _begins(run: Run) -> str:
    start = run.start
    if start.resumed is not None:
        return _goes_on(run, start.resumed)
    if start.source is not None:
        return f"with the weights of {_named(start.source.path)}"
    return f"with weights drawn anew (seed {run.config.seed})"


def _goes_on(run: Run, saved: store.Saved) -> str:
    steps = run.curriculum.steps
    if saved.meta.get("final") and (steps is None or saved.step >= steps):
        return (
            f"at its end: step {saved.step} was the last, and nothing is left to train; longer "
            "with a larger --num-iterations, anew without --resume"
        )
    return f"going on from step {saved.step}" + (f" of {steps}" if steps else "")


def _named(step: pathlib.Path) -> str:
    """A step of a run as people call it, or its path where it is none below a base directory."""
    stages = {folder: stage for stage, folder in CHECKPOINTS.items()}
    stage = stages.get(step.parents[1].name)
    return f"{stage}/{step.parent.name}, step {int(step.name)}" if stage else str(step)


def _steps(run: Run) -> str:
    cfg, steps = run.trainer.gpt.cfg, run.curriculum.steps
    tokens = setup.step_tokens(run.config, cfg)
    if steps is None:
        return f"one pass over the data, {tokens:,} tokens a step at most"
    total = steps * tokens
    each = f", {total / param_counts(cfg)['total']:.1f} a parameter" if run.stage == "base" else ""
    most = "" if run.stage in ("base", "mid") else " at most"
    return f"{steps:,} of {tokens:,} tokens{most} = {total:,} tokens{each}"


def _batch(run: Run) -> str:
    config, mesh = run.config, run.trainer.mesh
    passes = setup.passes(config, run.trainer.gpt.cfg, mesh)
    times = f", {passes} times a step" if passes > 1 else ""
    rows = f"{config.device_batch_size} row{'s' * (config.device_batch_size > 1)}"
    return f"{rows} of {config.max_seq_len} tokens on each device{times}"


def _devices(run: Run) -> str:
    mesh, gpt = run.trainer.mesh, run.trainer.gpt
    kind = mesh.devices.flat[0].device_kind
    count = f"{mesh.size} x {kind}" if mesh.size > 1 else kind
    processes = f" in {jax.process_count()} processes" if jax.process_count() > 1 else ""
    how = f"{gpt.dtype.name}, attention {gpt.attention}, remat {gpt.remat}"
    return f"{count}{processes} ({how})"
