"""The loop that every stage of the model runs in: evaluate, sample, save, train, until the end.

This is the shell around `train/step.py`: it owns jit, devices, files, the clock and Ctrl-C.
"""

import dataclasses
import logging
import math
import pathlib
import signal
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import jax
import numpy as np
from tqdm import tqdm

from nanochat_jax import sharding
from nanochat_jax.checkpoint import store
from nanochat_jax.config import values as config_values
from nanochat_jax.config.stages import Stage
from nanochat_jax.data.batch import MicroBatch
from nanochat_jax.models.gpt import GPT, Model
from nanochat_jax.tokenizer import Tokenizer
from nanochat_jax.train import scaling
from nanochat_jax.train.metrics import MetricsWriter
from nanochat_jax.train.step import Batch, TrainState, train_step

log = logging.getLogger(__name__)

EMA = 0.9  # of the loss shown in the progress bar, as the original
WARM_STEPS = 10  # steps left out of the training time, as the original: they hold the compilation

Scores = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Due:
    """Something to do every so many steps: `run(model, step)` gives numbers (or texts) to log.

    `first`: also before any step. `every` -1: never, not even at the end.
    """

    every: int
    run: Callable[[Model, int], Scores]
    first: bool = True

    def at(self, step: int, last: bool) -> bool:
        if self.every < 0:
            return False
        return last or ((self.first or step > 0) and step % self.every == 0)


@dataclasses.dataclass(frozen=True)
class Job:
    """All that a stage decides before its loop begins.

    Rows come from `loader`, or where it is None from `experience(model, step)`: the rows of a step
    as the model itself makes them, as `_next_micro_batches` gives them (`inputs`, `targets`
    int32 `[A, R, T]`, `progress`), and `weights` `[A, R, T]`, `tokens` (how many count for the
    speed) and `numbers` (to log). It must be a function of the parameters and the step alone.
    """

    stage: str
    config: Stage
    directory: pathlib.Path
    gpt: GPT
    tokenizer: Tokenizer
    mesh: jax.sharding.Mesh
    tx: Any
    schedule: Callable
    initial: Callable[[], Any]
    loader: Any
    micro_per_step: int
    steps: int | None
    due: tuple[Due, ...]
    fingerprint: Mapping[str, Any]
    saved: store.Saved | None = None
    warm_optimizer: store.Saved | None = None
    experience: Callable[[Model, int], Mapping[str, Any]] | None = None
    flops_per_token: float = 0.0

    @property
    def devices(self) -> int:
        return math.prod(self.mesh.shape.values())


class Interrupted(SystemExit):
    """A run ended by Ctrl-C or SIGTERM, whose checkpoint lies on disk."""


@dataclasses.dataclass
class Progress:
    """What a run has seen so far; saved with every checkpoint and restored with it."""

    smooth_loss: float = 0.0
    train_s: float = 0.0
    tokens: int = 0
    best_bpb: float = math.inf
    evaluated: bool = False

    def as_json(self) -> dict[str, Any]:
        best = self.best_bpb if math.isfinite(self.best_bpb) else None
        return dataclasses.asdict(self) | {"best_bpb": best}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "Progress":
        known = {f.name for f in dataclasses.fields(cls)}
        kept = {k: v for k, v in values.items() if k in known and v is not None}
        return cls(**kept)


def run(job: Job) -> Scores:
    """Trains to the end and returns the last scores; the final checkpoint is on disk.

    Raises:
        Interrupted: after Ctrl-C or SIGTERM, with a checkpoint saved (exit code 130).
    """
    state, place = _start(job)
    progress = Progress.from_json(job.saved.meta.get("loop", {})) if job.saved else Progress()
    start = job.saved.step if job.saved else 0
    batches = iter(job.loader) if job.experience is None else None
    if batches is not None and job.saved and job.saved.loader is not None:
        batches.set_state(job.saved.loader)
    writer = _writer(job, start if job.saved else None, progress.evaluated)
    compiled = _compile(job, place)
    scores: Scores = dict(job.saved.meta.get("metrics", {})) if job.saved else {}
    bar = _bar(job, start)
    try:
        with _Interrupts() as stop:
            loop = _Loop(job, compiled, batches, writer, progress, scores, bar, stop)
            loop.go(state, start)
    finally:
        bar.close()
        writer.close()
    done = {"train_s": progress.train_s, "steps": loop.step, "tokens": progress.tokens}
    best = {"best_bpb": progress.best_bpb} if math.isfinite(progress.best_bpb) else {}
    return scores | done | best


class _Loop:
    """The state of one run between its steps."""

    def __init__(self, job, compiled, batches, writer, progress, scores, bar, stop):
        self.job, self.compiled, self.batches, self.writer = job, compiled, batches, writer
        self.progress, self.scores, self.bar, self.stop = progress, scores, bar, stop
        self.step, self.pending, self.loader_state = 0, None, None
        self.first = True
        self.mark = time.perf_counter()

    def go(self, state: TrainState, start: int) -> None:
        job, step = self.job, start
        for step in range(start, 1 << 60):
            self.step = step
            self.loader_state = self.batches.get_state() if self.batches is not None else None
            rows = None if step == job.steps else self._next_micro_batches()
            last = rows is None
            if self.stop.is_set():
                self._collect()
                self._interrupt(state)
            if not (self.first and self.progress.evaluated):
                self._evaluate(state, last)
            self._maybe_save(state, last)
            self.first = False
            if last:
                break
            if job.experience is not None:
                rows = job.experience(Model(job.gpt, state.params), step)
            state, metrics = self.compiled(state, self._place(rows))
            self._collect()
            self.pending = (step, metrics, rows.get("tokens"), rows.get("numbers", {}))
            self.progress.evaluated = False

    def _next_micro_batches(self) -> dict[str, Any] | None:
        """The micro-batches of one step, stacked [A, R, T]; None when the data says it is over.

        Nothing yet where the model makes its rows itself.
        """
        job, micros = self.job, []
        if job.experience is not None:
            return {}
        for _ in range(job.micro_per_step):
            micro = next(self.batches, None)
            if micro is None or (self._seen_once(micro) and not micros):
                return None
            micros.append(micro)
        length = max(m.inputs.shape[1] for m in micros)
        accum = job.micro_per_step // job.devices
        shape = (accum, -1, length)
        return {
            "inputs": _stack([m.inputs for m in micros], length, 0).reshape(shape),
            "targets": _stack([m.targets for m in micros], length, -1).reshape(shape),
            "progress": micros[-1].progress,
        }

    def _seen_once(self, micro: MicroBatch) -> bool:
        """Whether the pass over the data ended before this micro-batch: with it no step begins,
        but one that has begun is filled up, and one step there always is."""
        return micro.last and self.job.steps is None and self.step > 0

    def _place(self, rows: Mapping[str, Any]) -> Batch:
        """The step's batch on the mesh: rows over the data axis."""
        where = sharding.batch_sharding(self.job.mesh)
        put = lambda a: jax.make_array_from_callback(a.shape, where, lambda i: a[i])
        weights = put(rows["weights"]) if "weights" in rows else None
        progress = np.float32(rows["progress"])
        return Batch(put(rows["inputs"]), put(rows["targets"]), progress, weights)

    def _collect(self) -> None:
        """Reads the numbers of the step before: the device is never waited for while it is idle."""
        if self.pending is None:
            return
        (step, metrics, tokens, more), self.pending = self.pending, None
        numbers = {k: float(v) for k, v in jax.device_get(metrics).items()} | more
        now = time.perf_counter()
        dt, self.mark = now - self.mark, now
        job, seen = self.job, self.progress
        if tokens is None:
            tokens = job.config.device_batch_size * job.config.max_seq_len * job.micro_per_step
        seen.tokens += tokens
        seen.train_s += dt if step > WARM_STEPS else 0.0
        seen.smooth_loss = EMA * seen.smooth_loss + (1 - EMA) * numbers["train/loss"]
        speed = {"tokens_per_s": tokens / dt, "step_ms": 1e3 * dt}
        mfu = scaling.mfu(
            job.flops_per_token, tokens / dt, jax.devices()[0].device_kind, job.devices
        )
        if mfu:
            speed["mfu"] = mfu
        self.writer.write(step, numbers | speed)
        shown = seen.smooth_loss / (1 - EMA ** (step + 1))
        extra = {"mfu": f"{mfu:.1f}%"} if mfu else {}
        if "train/reward" in numbers:
            extra["reward"] = f"{numbers['train/reward']:.3f}"
        self.bar.set_postfix(
            loss=f"{shown:.3f}", tok_s=f"{tokens / dt:,.0f}", **extra, refresh=False
        )
        self.bar.update(1)

    def _evaluate(self, state: TrainState, last: bool) -> None:
        """Whatever is due at this step, logged; the clock of the steps does not count it."""
        model, values = Model(self.job.gpt, state.params), {}
        due = [d for d in self.job.due if d.at(self.step, last)]
        if due:
            self._collect()
        for item in due:
            values |= item.run(model, self.step)
        if values:
            self.writer.write(self.step, values)
            self.scores |= values
            self.progress.best_bpb = min(self.progress.best_bpb, values.get("val/bpb", math.inf))
            self._say(values)
            self.mark = time.perf_counter()
        self.progress.evaluated = True

    def _say(self, values: Scores) -> None:
        numbers = [f"{k} {v:.4f}" for k, v in values.items() if isinstance(v, float)]
        if numbers:
            self.bar.write(f"step {self.step}: " + "  ".join(numbers))
        for text in values.get("samples", []):
            self.bar.write(f"  > {text}")

    def _maybe_save(self, state: TrainState, last: bool) -> None:
        every = self.job.config.save_every
        resumed = self.first and self.job.saved is not None and not last
        if last or (every > 0 and self.step > 0 and self.step % every == 0 and not resumed):
            self._collect()
            self._save(state, final=last)
            self.mark = time.perf_counter()

    def _interrupt(self, state: TrainState) -> None:
        """Saves and leaves, from the top of the loop: nothing of a step is half done."""
        self._save(state, final=False)
        raise Interrupted(130)

    def _save(self, state: TrainState, final: bool) -> None:
        job = self.job
        meta = {
            "stage": job.stage,
            "final": final,
            "model_config": dataclasses.asdict(job.gpt.cfg),
            "config": config_values.flatten(job.config),
            "fingerprint": dict(job.fingerprint),
            "tokenizer_hash": job.tokenizer.hash,
            "metrics": {k: v for k, v in self.scores.items() if isinstance(v, float | int)},
            "loop": self.progress.as_json(),
            "versions": versions(),
        }
        path = store.save(
            job.directory, self.step, state.params, meta,
            optimizer=state.opt_state, loader=self.loader_state,
        )  # fmt: skip
        self.bar.write(f"saved {path}")


class _Interrupts:
    """Turns the first Ctrl-C or SIGTERM into a flag; a second one ends at once."""

    def __enter__(self) -> threading.Event:
        self.flag = threading.Event()
        if threading.current_thread() is threading.main_thread():
            self.old = {s: signal.signal(s, self._handle) for s in (signal.SIGINT, signal.SIGTERM)}
        return self.flag

    def __exit__(self, *_: Any) -> None:
        for number, handler in getattr(self, "old", {}).items():
            signal.signal(number, handler)

    def _handle(self, number: int, _: Any) -> None:
        if self.flag.is_set():
            raise KeyboardInterrupt
        self.flag.set()
        tqdm.write("stopping after this step and saving; once more to stop at once")


def _start(job: Job) -> tuple[TrainState, Any]:
    """The first state, placed on the mesh: fresh, or as the checkpoint left it."""
    make = lambda: _fresh_state(job)
    shapes = jax.eval_shape(make)
    place = sharding.shardings(job.mesh, shapes)
    typed = jax.tree.map(
        lambda a, s: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=s), shapes, place
    )
    if job.saved is not None:
        params, opt = job.saved.params(typed.params), job.saved.optimizer(typed.opt_state)
        step = jax.device_put(np.int32(job.saved.step), place.step)
        return TrainState(step, params, opt), place
    state = jax.device_put(make(), place)
    if job.warm_optimizer is not None:
        state = state.replace(opt_state=job.warm_optimizer.optimizer(typed.opt_state))
    return state, place


def _fresh_state(job: Job) -> TrainState:
    return TrainState.create(job.initial(), job.tx)


def _compile(job: Job, place: Any) -> Callable:
    rows = job.config.device_batch_size
    step = partial(train_step, job.gpt, job.tx, job.schedule, rows, mesh=job.mesh)
    return jax.jit(step, donate_argnums=0, out_shardings=(place, None))


def _writer(job: Job, resume_step: int | None, evaluated: bool) -> MetricsWriter:
    project = {"base": "nanochat"}.get(job.stage, f"nanochat-{job.stage}")
    return MetricsWriter(
        job.directory, config_values.flatten(job.config), project=project,
        wandb_name=job.config.run, resume_step=resume_step, evaluated=evaluated,
    )  # fmt: skip


def _bar(job: Job, start: int) -> tqdm:
    import sys

    calm = {} if sys.stderr.isatty() else {"mininterval": 15, "ascii": True, "ncols": 100}
    return tqdm(total=job.steps, initial=start, desc=job.stage, unit="step", **calm)


def _stack(arrays: Sequence[np.ndarray], length: int, fill: int) -> np.ndarray:
    """Rows of several `[B, T]` arrays, each row filled up to `length`."""
    pad = lambda a: np.pad(a, ((0, 0), (0, length - a.shape[1])), constant_values=fill)
    return np.concatenate([pad(a) for a in arrays])


def versions() -> dict[str, str]:
    """The libraries that decide numbers, as this process has them."""
    import platform
    from importlib.metadata import version

    names = ("jax", "flax", "optax", "orbax-checkpoint", "grain", "numpy", "tokenizers")
    return {"python": platform.python_version()} | {name: version(name) for name in names}
