"""The loop that every stage of the model runs in: evaluate, save, train, until the end.

This is the shell around `train/step.py`: it owns files, the clock and Ctrl-C. What it runs is
assembled in `train/setup.py`.
"""

import dataclasses
import itertools
import logging
import math
import signal
import sys
import threading
import time
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
from tqdm import tqdm

from nanochat_jax.checkpoint import store
from nanochat_jax.config.values import flatten
from nanochat_jax.models.gpt import Model
from nanochat_jax.train.curriculum import StepRows
from nanochat_jax.train.hooks import Scores
from nanochat_jax.train.metrics import MetricsWriter
from nanochat_jax.train.peaks import mfu
from nanochat_jax.train.setup import Run
from nanochat_jax.train.step import TrainState

log = logging.getLogger(__name__)

EMA = 0.9  # of the loss shown in the progress bar, as the original
# Left out of the training time, as in the original: they hold the compilation.
WARM_STEPS = 10


class Interrupted(SystemExit):
    """A run ended by Ctrl-C or SIGTERM, whose checkpoint lies on disk."""


@dataclasses.dataclass
class Progress:
    """What a run has seen so far; saved with every checkpoint and restored with it.

    `evaluated`: the hooks of the next step have run already.
    """

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
        """From a checkpoint of any version: what is missing or unknown is left out."""
        known = {f.name for f in dataclasses.fields(cls)}
        kept = {k: v for k, v in values.items() if k in known and v is not None}
        return cls(**kept)


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What a finished run leaves: the last value of every score, and what it took."""

    scores: Scores
    progress: Progress
    steps: int


def train(run: Run) -> Outcome:
    """Trains to the end; the final checkpoint is on disk then.

    Raises:
        Interrupted: after Ctrl-C or SIGTERM, with a checkpoint saved (exit code 130).
    """
    # Before the writer is made, which drops the lines that the run will write again: a checkpoint
    # that cannot be read must not cost them.
    state = run.first_state()
    saved = run.start.resumed
    meta = saved.meta if saved else {}
    progress, first = Progress.from_json(meta.get("loop", {})), saved.step if saved else 0
    writer = MetricsWriter(
        run.directory,
        flatten(run.config),
        project="nanochat" if run.stage == "base" else f"nanochat-{run.stage}",
        wandb_name=run.config.run,
        resume_step=first if saved else None,
        evaluated=progress.evaluated,
    )
    bar = _bar(run, first)
    loop = _Loop(run, progress, dict(meta.get("metrics", {})), writer, bar, first)
    try:
        with _Interrupts() as stop:
            loop.go(state, stop)
    finally:
        bar.close()
        writer.close()
    return Outcome(loop.scores, progress, loop.step)


class _Pending(NamedTuple):
    """A step that the device was given and whose numbers nobody has read yet."""

    step: int
    metrics: Mapping[str, jax.Array]
    rows: StepRows


@dataclasses.dataclass
class _Loop:
    """A run between its steps; `step` counts those done, `clock` is when the last was."""

    run: Run
    progress: Progress
    scores: Scores
    writer: MetricsWriter
    bar: tqdm
    step: int
    pending: _Pending | None = None
    clock: float = 0.0

    def go(self, state: TrainState, stop: threading.Event) -> None:
        """Every step begins with what a checkpoint of this moment must hold: whatever happens from
        here on, a run resumed from it does the same again."""
        run, first = self.run, self.step
        position = run.start.resumed.loader if run.start.resumed else None
        upcoming = run.curriculum.rows(first, position)
        self.clock = time.perf_counter()
        for self.step in itertools.count(first):
            loader, make = next(upcoming)
            # Here nothing of a step is half done, so this is where a run may end.
            if stop.is_set():
                self._save(state, loader, final=False)
                raise Interrupted(130)
            # The data are asked before anything is measured: whether this is the end decides what
            # is due.
            last, resumed = make is None, self.step == first and run.start.resumed is not None
            if not (self.step == first and self.progress.evaluated):
                self._evaluate(state, last)
            if last or (self._save_is_due() and not resumed):
                self._save(state, loader, final=last)
            if last:
                return
            rows = make(Model(run.trainer.gpt, state.params))
            state, metrics = run.trainer.step(state, run.trainer.place(rows))
            self._collect()
            self.pending = _Pending(self.step, metrics, rows)
            self.progress.evaluated = False

    def _save_is_due(self) -> bool:
        every = self.run.config.save_every
        return every > 0 and self.step > 0 and self.step % every == 0

    def _collect(self) -> None:
        """Logs the step before the one that was just dispatched.

        To read a number is to wait for the step that makes it. Asked one step late, the device has
        its next step queued already and is never idle while the host writes.
        """
        if self.pending is None:
            return
        (step, metrics, rows), self.pending = self.pending, None
        numbers = {k: float(v) for k, v in jax.device_get(metrics).items()} | rows.numbers
        now = time.perf_counter()
        dt, self.clock = now - self.clock, now
        seen, trainer = self.progress, self.run.trainer
        seen.tokens += rows.tokens
        seen.train_s += dt if step > WARM_STEPS else 0.0
        seen.smooth_loss = EMA * seen.smooth_loss + (1 - EMA) * numbers["train/loss"]
        speed = {"tokens_per_s": rows.tokens / dt, "step_ms": 1e3 * dt}
        flops, device = self.run.curriculum.flops_per_token, jax.devices()[0].device_kind
        if used := mfu(flops, rows.tokens / dt, device, trainer.mesh.size):
            speed["mfu"] = used
        self.writer.write(step, numbers | speed)
        self._show(step, numbers | speed)

    def _show(self, step: int, numbers: Scores) -> None:
        # An average that begins at 0 reads too low at first; dividing by its weights mends that.
        shown = {"loss": f"{self.progress.smooth_loss / (1 - EMA ** (step + 1)):.3f}"}
        shown["tok_s"] = f"{numbers['tokens_per_s']:,.0f}"
        for name, key, form in (("mfu", "mfu", "{:.1f}%"), ("reward", "train/reward", "{:.3f}")):
            if key in numbers:
                shown[name] = form.format(numbers[key])
        self.bar.set_postfix(shown, refresh=False)
        self.bar.update(1)

    def _evaluate(self, state: TrainState, last: bool) -> None:
        """Runs the hooks that are due and logs what they find."""
        due = [hook for hook in self.run.curriculum.hooks if hook.due(self.step, last)]
        if due:
            self._collect()
        model, values = Model(self.run.trainer.gpt, state.params), {}
        for hook in due:
            values |= hook.run(model, self.step)
        if values:
            self.writer.write(self.step, values)
            self.scores |= values
            self.progress.best_bpb = min(self.progress.best_bpb, values.get("val/bpb", math.inf))
            self._print(values)
            self.clock = time.perf_counter()  # the speed of a step does not count evaluations
        self.progress.evaluated = True

    def _print(self, values: Scores) -> None:
        numbers = [f"{k} {v:.4f}" for k, v in values.items() if isinstance(v, float)]
        if numbers:
            self.bar.write(f"step {self.step}: " + "  ".join(numbers))
        for text in values.get("samples", []):
            self.bar.write(f"  > {text}")

    def _save(self, state: TrainState, loader: Any, final: bool) -> None:
        self._collect()
        run = self.run
        meta = {
            "stage": run.stage,
            "final": final,
            "model_config": dataclasses.asdict(run.trainer.gpt.cfg),
            "config": flatten(run.config),
            "fingerprint": dict(run.fingerprint),
            "tokenizer_hash": run.tokenizer.hash,
            "metrics": {k: v for k, v in self.scores.items() if isinstance(v, float | int)},
            "loop": self.progress.as_json(),
            "versions": versions(),
        }
        path = store.save(
            run.directory, self.step, state.params, meta, optimizer=state.opt_state, loader=loader
        )
        self.bar.write(f"saved {path}")
        self.clock = time.perf_counter()


class _Interrupts:
    """Turns the first Ctrl-C or SIGTERM into a flag; a second one ends at once."""

    def __enter__(self) -> threading.Event:
        self.flag, self.old = threading.Event(), {}
        if threading.current_thread() is threading.main_thread():  # no other may set handlers
            self.old = {s: signal.signal(s, self._handle) for s in (signal.SIGINT, signal.SIGTERM)}
        return self.flag

    def __exit__(self, *_: Any) -> None:
        for number, handler in self.old.items():
            signal.signal(number, handler)

    def _handle(self, number: int, _: Any) -> None:
        if self.flag.is_set():
            raise KeyboardInterrupt
        self.flag.set()
        tqdm.write("stopping after this step and saving; once more to stop at once")


def _bar(run: Run, first: int) -> tqdm:
    # A log file keeps every redrawing of the bar: there it is drawn seldom, and without colours.
    calm = {} if sys.stderr.isatty() else {"mininterval": 15, "ascii": True, "ncols": 100}
    return tqdm(total=run.curriculum.steps, initial=first, desc=run.stage, unit="step", **calm)


def versions() -> dict[str, str]:
    """The libraries that decide numbers, as this process has them."""
    import platform
    from importlib.metadata import version

    names = ("jax", "flax", "optax", "orbax-checkpoint", "grain", "numpy", "tokenizers")
    return {"python": platform.python_version()} | {name: version(name) for name in names}
