"""What a person sees of a run while it goes on: a bar, and lines above it."""

import sys
from typing import Any

from tqdm import tqdm

from nanochat_jax.hosts import group


class Silent(tqdm):
    """The bar of every process but the first: it is not drawn, and its lines are not written."""

    def __init__(self, **settings: Any):
        super().__init__(**settings, disable=True)

    @classmethod
    def write(cls, *_: Any, **__: Any) -> None:
        """Nothing: process 0 writes the same line."""


def step_bar(stage: str, steps: int | None, done: int) -> tqdm:
    """A bar over a stage's steps (None: their number is not known), of which some are done."""
    # A log file keeps every redrawing of the bar: there it is drawn seldom, without colours.
    calm = {} if sys.stderr.isatty() else {"mininterval": 15, "ascii": True, "ncols": 100}
    kind = tqdm if group.chief() else Silent
    return kind(total=steps, initial=done, desc=stage, unit="step", **calm)
