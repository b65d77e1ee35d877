"""What a run learns from: the rows of every optimizer step, what ends them, what is measured.

Each stage (`base`, `chat`, `rl`) makes a `Curriculum`; everything else about a run is the same for
all of them and is assembled in `setup`.
"""

import dataclasses
import itertools
import pathlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jax.sharding import Mesh

from nanochat_jax.config.gpt import GPTConfig
from nanochat_jax.data.batch import MicroBatch
from nanochat_jax.models.gpt import Model
from nanochat_jax.tokenizer import Tokenizer
from nanochat_jax.train.hooks import Hook
from nanochat_jax.train.sources import Chat, Document

Figures = dict[str, Any]


class RunContext(NamedTuple):
    """What is known of a run before its data: what a stage makes its curriculum from."""

    cfg: GPTConfig
    tokenizer: Tokenizer
    mesh: Mesh
    micro_rows: int  # of a micro-batch: a pull of the loader, a mean of the loss
    micro_batches: int  # of a step
    passes: int  # forward and backward, of a step on every device
    root: pathlib.Path
    directory: pathlib.Path  # where the run's checkpoints go
    recorded: Mapping[str, Any] | None = None  # the data that a resumed run began with


class StepRows(NamedTuple):
    """The rows of one optimizer step: `A` accumulations of `R` rows of `T` tokens.

    `weights` None: the loss is the mean over micro-batches of their means. `tokens` is what the
    speed counts, padding left out; `numbers` is logged beside the step's own.
    """

    inputs: np.ndarray  # int32 [A, R, T]
    targets: np.ndarray  # int32 [A, R, T], -1 where nothing is to be predicted
    tokens: int
    progress: float = 0.0  # share of a finite pass over the data, 0 to 1
    weights: np.ndarray | None = None  # float32 [A, R, T]
    numbers: Mapping[str, float] = {}
    micros: Sequence[MicroBatch] = ()  # of a loader: they know which documents they are of


class Upcoming(NamedTuple):
    """What is known before a step begins. Positions are the loader's: `position`, before the step's
    rows, belongs into a checkpoint of this moment, `after` into one of the next.

    `make` makes the rows (rollouts ask for the model of this moment, which devices then bring
    together; a loader does not). None: the data are over and so is the run.
    """

    position: Any
    make: Callable[[Callable[[], Model]], StepRows] | None
    after: Any


# (first step, loader position of a checkpoint or None) -> one `Upcoming` a step; the last has no
# rows. A function of both alone, so that a resumed run sees what an uninterrupted one does.
RowSource = Callable[[int, Any], Iterator[Upcoming]]


@dataclasses.dataclass(frozen=True)
class Curriculum:
    """What is a stage's own.

    Args:
        summary: what there is to learn from, for people.
        steps: optimizer steps; None: until the data have been seen once.
        figures: the run's common figures -> those that the report shows.
        data: what its checkpoints say of the data (`data/ledger.py`).
        source: names the source of a loader's piece (`sources.py`).
        flops_per_token: for the utilisation; 0 where a step does more than train (rollouts).
    """

    summary: str
    steps: int | None
    rows: RowSource
    hooks: Sequence[Hook]
    figures: Callable[[Figures], Figures] = lambda common: common
    data: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    flops_per_token: float = 0.0
    source: Callable[[Any], Document | Chat] | None = None


def loader_rows(loader: Any, micro_batches: int, passes: int, steps: int | None) -> RowSource:
    """Steps of `micro_batches` pulls each, from a loader (a grain dataset); their rows, in the
    order of the pulls, are computed in so many passes."""

    batches = iter(loader)  # now: data that cannot be read are told before a run begins

    def rows(first: int, position: Any) -> Iterator[Upcoming]:
        if position is not None:
            batches.set_state(position)
        position = batches.get_state()
        for step in itertools.count(first):
            micros = list(itertools.islice(batches, 0 if _over(step, steps) else micro_batches))
            # A micro-batch after the end of the pass starts no step. A step that has started before
            # that end is filled from the second pass, as the original does; and step 0 is always
            # made, even of a mixture that is smaller than one step.
            full = len(micros) == micro_batches
            if not full or (steps is None and step > 0 and micros[0].last):
                yield Upcoming(position, None, position)
                return
            made = _stack(micros, passes)
            after = batches.get_state()
            yield Upcoming(position, lambda _, made=made: made, after)
            position = after

    return rows


def _over(step: int, steps: int | None) -> bool:
    # Not only equal: a run can be resumed with fewer steps than it has done.
    return steps is not None and step >= steps


def _stack(micros: Sequence[MicroBatch], passes: int) -> StepRows:
    """Micro-batches of one or several lengths as `[A, R, T]`, filled up to the longest."""
    T = max(m.inputs.shape[1] for m in micros)
    pad = lambda a, fill: np.pad(a, ((0, 0), (0, T - a.shape[1])), constant_values=fill)
    join = lambda arrays: np.concatenate(arrays).reshape(passes, -1, T)
    inputs = join([pad(m.inputs, 0) for m in micros])
    targets = join([pad(m.targets, -1) for m in micros])
    tokens = sum(m.tokens for m in micros)
    return StepRows(inputs, targets, tokens, micros[-1].progress, micros=micros)
