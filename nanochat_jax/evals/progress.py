"""The bar of an evaluation: alive in a terminal, a line now and then in a log."""

import sys

from tqdm import tqdm


def bar(what: str, total: int, before: int = 0) -> tqdm:
    """A bar over `total` questions, of which `before` were answered earlier."""
    calm = {} if sys.stderr.isatty() else {"mininterval": 15, "ascii": True, "ncols": 100}
    return tqdm(total=total, initial=before, desc=what, unit="question", leave=None, **calm)
