"""The loop that every stage of the model runs in: save, evaluate, train, until the end.

This is the shell around `train/step.py`: it owns files and the clock. What it runs is assembled in
`train/setup.py`; what asks it to stop is in `stopping.py`.
"""

import contextlib
import dataclasses
import functools
import importlib.metadata
import itertools
import logging
import pathlib
import platform
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax

from nanochat_jax.checkpoint.prune import SOURCE
from nanochat_jax.checkpoint.saver import Saver
from nanochat_jax.config.saving import Cadence, Keep
from nanochat_jax.config.values import flatten
from nanochat_jax.data import ranks
from nanochat_jax.hosts import group, watch
from nanochat_jax.stopping import Interrupted, Stop, in_order
from nanochat_jax.train import console, metrics, not_finite
from nanochat_jax.train.beginning import Begun, begin, slow
from nanochat_jax.train.compiles import CompileWatch
from nanochat_jax.train.curriculum import StepRows
from nanochat_jax.train.evaluations import Evaluations
from nanochat_jax.train.hooks import Scores
from nanochat_jax.train.not_finite import NotFinite
from nanochat_jax.train.peaks import mfu
from nanochat_jax.train.setup import Run
from nanochat_jax.train.step import Batch, TrainState
from nanochat_jax.train.together import Together

log = logging.getLogger(__name__)

EMA = 0.9  # of the loss shown in the progress bar, as the original
# Left out of the training time, as in the original: they hold the compilation.
WARM_STEPS = 10


@dataclasses.dataclass
class Progress:
    """What a run has seen so far; saved with every checkpoint and restored with it.

    `evaluated`: the hooks of the next step have run already; `failed`: so many of all did fail;
    `skipped`: so many steps were not finite and left out.
    """

    smooth_loss: float = 0.0
    train_s: float = 0.0
    tokens: int = 0
    best_bpb: float | None = None
    evaluated: bool = False
    failed: int = 0
    skipped: int = 0

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "Progress":
        """From a checkpoint of any version: what is missing or unknown is left out."""
        known = cls.__dataclass_fields__.keys() & values.keys()
        return cls(**{name: values[name] for name in known if values[name] is not None})


class Pending(NamedTuple):
    """A step that the device was given and nobody has read yet."""

    step: int
    metrics: Mapping[str, jax.Array]
    rows: StepRows
    position: Any  # of the loader, before its rows


class Loop:
    """A run between its steps: `step` counts those done; `scores` are the last value of each."""

    def __init__(self, run: Run, begun: Begun):
        saved = run.start.resumed
        meta = saved.meta if saved else {}
        self.run, self.step = run, saved.step if saved else 0
        self.compiles = CompileWatch()
        self.progress = Progress.from_json(meta.get("loop", {}))
        self.scores: Scores = dict(meta.get("metrics", {}))
        self.writer = metrics.writer(
            run.directory, resume_step=self.step if saved else None,
            evaluated=self.progress.evaluated, wandb=begun.wandb,
        )  # fmt: skip
        self.bar = console.step_bar(run.stage, run.curriculum.steps, self.step)
        self.evaluations = Evaluations(
            run.curriculum.hooks, run.directory, self.compiles, run.config.strict
        )
        self.saver = Saver(
            run.directory, run.directory.parents[1], Keep.of(run.config.keep),
            saved=lambda path: self.bar.write(f"saved {path}"),
        )  # fmt: skip
        self.cadence, self.saved_at = Cadence.of(run.config.save_every), 0.0
        self.clock = 0.0  # when the last step was done
        self.pending: Pending | None = None
        self.saved = self.step  # the step last given to the disk; 0: none is worth it yet
        self._upcoming, self._shapes = begun.upcoming, begun.shapes

    def go(self, state: TrainState, stop: Stop | Together) -> None:
        """Every step begins with what a checkpoint of this moment must hold: whatever happens from
        here on, a run resumed from it does the same again."""
        position = self.run.start.resumed.loader if self.run.start.resumed else None
        self.now, self.stop = (state, position), stop
        self.clock = self.saved_at = time.perf_counter()
        try:
            self._go()
        except (Interrupted, NotFinite):
            # Raised where this thread waited, so that nothing of a step is half done.
            self._save_rest()
            self.saver.wait()
            watch.part()  # several processes are all here
            raise
        except Exception:
            self._rescue()
            raise

    def _go(self) -> None:
        run, first = self.run, self.step
        for self.step in itertools.count(first):
            due = self._save_is_due()
            loader, make, after = self.stop.run(lambda: next(self._upcoming), slow)
            state, _ = self.now
            # The data are asked before anything is done: whether this is the end decides what is
            # due.
            last, resumed = make is None, self.step == first and run.start.resumed is not None
            saved = run.start.resumed.path if resumed else None
            # Where none is due, nothing is to be done at this step when the run goes on from it.
            self.progress.evaluated |= not self.evaluations.due(self.step, last)
            # Saved before anything runs on it that can fail: an evaluation, or the next step.
            if saved is None and (last or due):
                saved = self._save(state, loader, final=last)
            elif saved is not None and last:
                self.saver.amend(saved, {"final": True})
            if last or not self.progress.evaluated:
                self.saver.wait()  # an evaluation may take the whole process down
            if not self.progress.evaluated:
                self._evaluate(state, last, saved)
            if last:
                return
            with self.compiles.during("the making of rows"):
                model = functools.partial(run.trainer.model, state)
                rows = self.stop.run(functools.partial(make, model))
            with self.compiles.during(f"a step with rows of {rows.inputs.shape[-1]} tokens"):
                batch = run.trainer.place(rows)
                self._compile(state, batch)
                # Nothing from here to the end of the round waits for a signal: a state that was
                # given away belongs to no step.
                state, metrics = run.trainer.step(state, batch)
            self.now = state, after
            del batch  # of the next step, when that begins: the device has room for one
            self._collect()
            self.pending = Pending(self.step, metrics, rows, loader)
            self.progress.evaluated = False

    def _save_rest(self) -> None:
        """Saves what was learned since the last save, up to a step that was not finite."""
        with contextlib.suppress(NotFinite):  # told already; what counts is where it leads back to
            self._collect()
        if self.step != self.saved:
            self._save(*self.now, final=False)

    def _rescue(self) -> None:
        """Saves what an error in the data or an evaluation would lose."""
        # One of several processes cannot save alone; and a step that failed has eaten its state.
        if group.count() > 1 or any(a.is_deleted() for a in jax.tree.leaves(self.now[0])):
            return
        try:
            self._save_rest()
        except Exception as error:  # the first one is what ends the run, and is told
            log.error("step %d could not be saved either: %s", self.step, error)
        else:
            if self.saved:
                log.info("step %d is saved: --resume goes on from there", self.saved)

    def _compile(self, state: TrainState, batch: Batch) -> None:
        """Compiles the step for rows of a new shape, where a signal can end it: later calls find
        the program made."""
        shape = batch.inputs_ART.shape
        if shape not in self._shapes:
            self.stop.run(lambda: self.run.trainer.step.lower(state, batch).compile())
            self._shapes.add(shape)

    def _collect(self) -> None:
        """Logs the step before the one that was just dispatched.

        To read a number is to wait for the step that makes it. Asked one step late, the device has
        its next step queued already and is never idle while the host writes.
        """
        if self.pending is None:
            return
        read, self.pending = self.pending, None
        step, rows = read.step, read.rows
        numbers = {k: float(v) for k, v in jax.device_get(read.metrics).items()} | rows.numbers
        if not_finite.is_so(numbers):
            return self._not_finite(read, numbers)
        now = time.perf_counter()
        dt, self.clock = now - self.clock, now
        seen, speed = self.progress, {"tokens_per_s": rows.tokens / dt, "step_ms": 1e3 * dt}
        seen.tokens += rows.tokens
        seen.train_s += dt if step > WARM_STEPS else 0.0
        seen.smooth_loss = EMA * seen.smooth_loss + (1 - EMA) * numbers["train/loss"]
        flops, device = self.run.curriculum.flops_per_token, jax.devices()[0].device_kind
        if used := mfu(flops, rows.tokens / dt, device, self.run.trainer.mesh.size):
            speed["mfu"] = used
        self.writer.write(step, numbers | speed)
        self._show(step, numbers | speed)

    def _not_finite(self, read: Pending, numbers: Scores) -> None:
        """Tells of a step whose update was not made, and goes back to it if the run ends here."""
        file = not_finite.write(self.run, read.step, read.rows, numbers)
        if self.run.config.on_nan == "stop":
            # No step after it was made either, so the state is still the one before it.
            self.step, self.now = read.step, (self.now[0], read.position)
            self.progress.evaluated = True
            raise not_finite.ends(self.run, read.step, file)
        self.progress.skipped += 1
        self.writer.write(read.step, {"train/skipped": self.progress.skipped})
        self.bar.write(f"step {read.step} is not finite and left out; what it had read: {file}")
        self.bar.update(1)
        self.clock = time.perf_counter()

    def _show(self, step: int, numbers: Scores) -> None:
        # An average that begins at 0 reads too low at first; dividing by its weights mends that.
        shown = {"loss": f"{self.progress.smooth_loss / (1 - EMA ** (step + 1)):.3f}"}
        shown["tok_s"] = f"{numbers['tokens_per_s']:,.0f}"
        for name, key, form in (("mfu", "mfu", "{:.1f}%"), ("reward", "train/reward", "{:.3f}")):
            if key in numbers:
                shown[name] = form.format(numbers[key])
        self.bar.set_postfix(shown, refresh=False)
        self.bar.update(1)

    def _evaluate(self, state: TrainState, last: bool, saved: pathlib.Path | None) -> None:
        """Runs the hooks that are due and adds what they find to the log and to the saved step."""
        due = self.evaluations.due(self.step, last)
        self._collect()
        model = functools.partial(self.run.trainer.model, state)
        run = functools.partial(self.evaluations.run, due, model, self.step)
        values, failed = self.stop.run(run)
        self.progress.evaluated = True
        self.progress.failed += failed
        if values:
            self.writer.write(self.step, values)
            self.scores |= values
            bpbs = self.progress.best_bpb, values.get("val/bpb")
            self.progress.best_bpb = min((b for b in bpbs if b is not None), default=None)
            self._print(values)
        if saved is not None:
            self.saver.amend(saved, {"metrics": self._numbers(), "loop": self._progress()})
        self.clock = time.perf_counter()  # the speed of a step does not count evaluations

    def _print(self, values: Scores) -> None:
        numbers = [f"{k} {v:.4f}" for k, v in values.items() if isinstance(v, float)]
        if numbers:
            self.bar.write(f"step {self.step}: " + "  ".join(numbers))
        for text in values.get("samples", []):
            self.bar.write(f"  > {text}")

    def _save_is_due(self) -> bool:
        self.saver.check()  # sooner than at the next save: what is not saved now may be lost
        due = self.cadence.due(self.step, time.perf_counter() - self.saved_at)
        by_clock = self.cadence.seconds is not None  # and clocks differ
        agreed = self.stop.between_steps(due and by_clock)
        return agreed if by_clock else due

    def _numbers(self) -> Scores:
        return {k: v for k, v in self.scores.items() if isinstance(v, float | int)}

    def _progress(self) -> dict[str, Any]:
        return dataclasses.asdict(self.progress)

    def _save(self, state: TrainState, loader: Any, final: bool) -> pathlib.Path:
        self._collect()
        run = self.run
        meta = {
            "stage": run.stage,
            "final": final,
            "model_config": dataclasses.asdict(run.trainer.gpt.cfg),
            "config": flatten(run.config),
            "fingerprint": dict(run.fingerprint),
            "data": dict(run.curriculum.data),
            "tokenizer_hash": run.tokenizer.hash,
            SOURCE: run.source,
            "metrics": self._numbers(),
            "loop": self._progress(),
            "versions": versions(),
            **run.adapted,
        }
        loader = ranks.merged(group.gathered(loader))
        arrays = dict(optimizer=state.opt_state, loader=loader)
        self.writer.sync()  # the lines before this step, which nothing writes again
        with self.compiles.during("a save"):
            path = self.saver.save(self.step, state.params, meta, **arrays)
        self.saved = self.step
        self.clock = self.saved_at = time.perf_counter()
        return path


def train(run: Run, state: TrainState, make_room: Callable[[], Any] = lambda: None) -> Loop:
    """Trains from `state` (`run.first_state()`) to the end; the final checkpoint is on disk then.

    Args:
        make_room: called when all that could refuse the run has been tried, before it writes.

    Raises:
        Interrupted: after Ctrl-C or SIGTERM, with a checkpoint saved (exit code 130 or 143).
    """
    with in_order() as heard:
        stop = Together(heard, run.trainer.mesh) if group.count() > 1 else heard
        begun = begin(run, state, stop)
        make_room()
        # Only now: making the writer drops the lines that the run will write again.
        loop = Loop(run, begun)
        with contextlib.closing(loop.writer), contextlib.closing(loop.bar):
            with loop.saver, loop.compiles.listening():
                loop.go(state, stop)
    return loop


def versions() -> dict[str, str]:
    """The libraries that decide numbers, as this process has them."""
    names = ("jax", "flax", "optax", "orbax-checkpoint", "grain", "numpy", "tokenizers")
    found = {name: importlib.metadata.version(name) for name in names}
    return {"python": platform.python_version()} | found
