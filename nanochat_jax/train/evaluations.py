"""What is due at a step is run; what fails of it is told and counted, and does not end the run."""

import dataclasses
import functools
import pathlib
from collections.abc import Callable, Sequence

import jax

from nanochat_jax.config.errors import FAILURES, told
from nanochat_jax.models.gpt import Model
from nanochat_jax.train.compiles import CompileWatch
from nanochat_jax.train.hooks import Hook, Scores


@dataclasses.dataclass(frozen=True)
class Evaluations:
    """The hooks of a run. `strict`: one that fails ends it, after the step was saved.

    With several processes a failure always ends the run: it may be that of one of them, which the
    others would wait for.
    """

    hooks: Sequence[Hook]
    directory: pathlib.Path
    compiles: CompileWatch
    strict: bool = False

    def due(self, step: int, last: bool) -> list[tuple[int, Hook]]:
        """Those of a step, with their numbers."""
        return [(n, hook) for n, hook in enumerate(self.hooks, 1) if hook.due(step, last)]

    def run(
        self, due: Sequence[tuple[int, Hook]], model: Callable[[], Model], step: int
    ) -> tuple[Scores, int]:
        """(what they found, how many failed)."""
        values: Scores = {}
        failed, model = 0, functools.cache(model)
        for n, hook in due:
            try:
                with self.compiles.during(f"evaluation {n}"):
                    values |= hook.run(model(), step)
            except Exception as error:
                if self.strict or jax.process_count() > 1:
                    raise
                failed += 1
                told(f"{hook.name} at step {step}", error, self.directory / FAILURES)
        return values, failed
