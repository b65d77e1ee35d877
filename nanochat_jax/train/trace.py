"""Which documents or conversations were in the rows of a step: the loader of the run, read again.

Nothing of this was written down while the run trained. Its order of data is a function of its
config, its seed, its tokenizer and its shards, and every checkpoint holds a position in it: the
loader goes on from the nearest one before the step, and says where its tokens come from.
"""

import dataclasses
import itertools
import pathlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import grain
import numpy as np
from tqdm import tqdm

from nanochat_jax.checkpoint import find_checkpoint, load_tokenizer, store
from nanochat_jax.config.data import Trace
from nanochat_jax.config.paths import base_dir
from nanochat_jax.config.stages import STAGES, BaseTrain, Stage
from nanochat_jax.config.values import build, fields
from nanochat_jax.data import ledger, manifest
from nanochat_jax.data.batch import MicroBatch, Piece
from nanochat_jax.tokenizer import Tokenizer
from nanochat_jax.train import base, chat, sources
from nanochat_jax.train.setup import step_tokens
from nanochat_jax.train.sources import Chat, Document

SHOWN = 24  # tokens of a piece that are shown


class Traced(NamedTuple):
    """Tokens `start` to `stop` of `origin`, which stand in a row of a step from `column` on."""

    row: int
    column: int
    origin: Document | Chat
    start: int
    stop: int
    text: str  # of the first of them

    def __str__(self) -> str:
        place = f"row {self.row} column {self.column}: {self.origin}"
        return f"{place} tokens {self.start}-{self.stop}  {self.text!r}"


@dataclasses.dataclass(frozen=True)
class TracedStep:
    """The micro-batches of one step, as the loader gives them, and what their pieces are of."""

    step: int
    since: int  # the step of the checkpoint that the loader went on from
    micros: Sequence[MicroBatch]
    name: Callable[[Any], Document | Chat]
    tokenizer: Tokenizer

    @property
    def rows(self) -> list[tuple[np.ndarray, np.ndarray, Sequence[Piece]]]:
        """Of each row, in the order of the micro-batches: inputs, targets [T], and pieces."""
        return [row for m in self.micros for row in zip(m.inputs, m.targets, m.pieces, strict=True)]

    def traced(self, row: int) -> Iterator[Traced]:
        """What a row holds, from left to right; raises ValueError where there is none."""
        rows, column = self.rows, 0
        if not 0 <= row < len(rows):
            raise ValueError(f"step {self.step} has rows 0 to {len(rows) - 1}, no row {row}")
        inputs, _, pieces = rows[row]
        for source, start, stop in pieces:
            end = column + stop - start
            text = self.tokenizer.decode(inputs[column : min(end, column + SHOWN)].tolist())
            yield Traced(row, column, self.name(source), start, stop, text)
            column = end


def trace(stage: str, step: int, root: pathlib.Path, tag: str = "") -> TracedStep:
    """The rows of a step of a run, numbered as in its `metrics.jsonl`.

    Raises:
        FileNotFoundError: there is no such run.
        ValueError: the run has no such step, or its data have changed since.
    """
    newest = find_checkpoint(stage, tag or None, None, root)
    if step < 0 or (newest.meta.get("final") and step >= newest.step):
        raise ValueError(f"the run in {newest.path.parent} has steps 0 to {newest.step - 1}: "
                         f"there is no step {step}")  # fmt: skip
    start = _before(newest, step)
    config, tokenizer = config_of(stage, newest.meta), load_tokenizer(newest, root)
    rows = ledger.micro_rows(newest.meta) or config.device_batch_size
    loader, name = _loader(config, newest, tokenizer, root, rows)
    batches, since = iter(loader), start.step if start else 0
    if start:
        batches.set_state(start.loader)
    pulls = step_tokens(config, newest.cfg) // (rows * config.max_seq_len)
    for _ in tqdm(range((step - since) * pulls), desc="micro-batches", leave=False, delay=2):
        next(batches)
    return TracedStep(step, since, list(itertools.islice(batches, pulls)), name, tokenizer)


def _before(newest: store.Saved, step: int) -> store.Saved | None:
    """The last checkpoint of a run at or before a step that has a position; None: its start."""
    folder = newest.path.parent
    found = [store.find(folder, n) for n in store.steps(folder) if n <= step]
    return next((saved for saved in reversed(found) if saved.loader is not None), None)


def config_of(stage: str, meta: dict[str, Any]) -> Stage:
    """The config that a run had."""
    known = fields(STAGES[stage])
    return build(STAGES[stage], {n: v for n, v in meta["config"].items() if n in known})


def _loader(
    config: Stage, saved: store.Saved, tokenizer: Tokenizer, root: pathlib.Path, rows: int
) -> tuple[grain.IterDataset, Callable[[Any], Document | Chat]]:
    """The run's loader, nothing made ahead, and what names the source of a piece."""
    recorded = saved.meta.get("data")
    if isinstance(config, BaseTrain):
        data = base.shards_of(config, root, recorded)
        named = sources.documents(data, manifest.identify([*data.train, data.val]))
        make = base.loader(config, tokenizer, rows)
        return make(data.train, ranks=config.loader_ranks, prefetch=0), named
    mixture = chat.mixture(config, root, "train")
    if recorded:
        ledger.check_mixture(mixture, recorded)
    return chat.loader(config, tokenizer, rows)(mixture, prefetch=0), sources.chats(mixture)


def run(command: Trace) -> int:
    """Prints the rows of a step; returns the exit code."""
    found = trace(command.stage, command.step, base_dir(), command.model_tag)
    count = len(found.rows)
    print(f"step {command.step} of {command.stage}: {count} rows, read on from step {found.since}")
    for row in range(count) if command.row < 0 else [command.row]:
        for piece in found.traced(row):
            print(piece)
    return 0
