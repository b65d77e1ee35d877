"""Documents of ids into rows: pure functions on lists and numpy arrays."""

from collections.abc import Sequence

import numpy as np


def choose(lengths: Sequence[int], room: int) -> tuple[int, bool]:
    """(index, fits): the longest document that fits into `room`, the first one on ties.

    When none fits: the shortest, first on ties, which the caller cuts.
    Source: nanochat `nanochat/dataloader.py` (BOS-aligned best fit).
    """
    best, best_length, short, short_length = -1, 0, -1, 1 << 62
    for i, length in enumerate(lengths):
        if best_length < length <= room:
            best, best_length = i, length
        if length < short_length:
            short, short_length = i, length
    return (best, True) if best >= 0 else (short, False)


def shift(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows of T+1 ids -> (inputs, targets), both int32 [B, T]."""
    rows = np.asarray(rows, np.int32)
    return np.ascontiguousarray(rows[:, :-1]), np.ascontiguousarray(rows[:, 1:])


def supervised(ids: np.ndarray, mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows of T+1 ids and their masks -> (inputs, targets), targets -1 where the mask is 0."""
    inputs, targets = shift(ids)
    return inputs, np.where(np.asarray(mask)[:, 1:] == 1, targets, -1).astype(np.int32)
