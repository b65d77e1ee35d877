"""What every loader yields."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np


class Piece(NamedTuple):
    """Tokens `start` to `stop` of one document (its bos counts) or conversation. `source` names it:
    a `Position` of the shards, or an index of the mixture."""

    source: Any
    start: int
    stop: int


class MicroBatch(NamedTuple):
    """Rows of one forward and backward pass, and where the loader stands after them.

    A target of -1 has no loss. `progress` is the share of the pass over a finite mixture that is
    over, 0 to 1; a pretraining loader has no end and leaves it 0. `last` is true from the pull on
    which the pass ended. `position` is what the original's checkpoint would hold here. `pieces` of
    a row say where its T + 1 tokens (the inputs and the last target) come from, in their order;
    what they do not reach is padding.
    """

    inputs: np.ndarray  # int32 [B, T]
    targets: np.ndarray  # int32 [B, T]
    epoch: int = 1
    progress: float = 0.0
    last: bool = False
    position: Mapping[str, int] | None = None
    pieces: Sequence[Sequence[Piece]] = ()

    @property
    def tokens(self) -> int:
        """Tokens that another one follows: all of the inputs but padding."""
        if not self.pieces:
            return self.inputs.size
        return sum(sum(p.stop - p.start for p in row) - 1 for row in self.pieces)


def one_pass(batches: Iterable[MicroBatch], most: int | None = None) -> Iterator[MicroBatch]:
    """The micro-batches until the data begin again, `most` of them at the most, one at least."""
    # One at least: a validation split smaller than a micro-batch begins again within the first,
    # and a score of nothing would be no score.
    for i, batch in enumerate(batches):
        if i == most or (i and (batch.epoch > 1 or batch.last)):
            return
        yield batch
