"""Tiny runs of every stage to kill: what each one is called with, and the folders it runs in."""

import os
import pathlib
import shutil
from collections.abc import Iterator
from typing import NamedTuple

from nanochat_jax.config import paths
from nanochat_jax.train import origin

RECIPES = ("classic", "current")
TAG = "d1"
STEPS = 8
# Saved, evaluated and stopped at steps that meet in all ways: 2, 3 and 8.
SETTINGS = f"""
embedded_world = true
device_batch_size = 2
max_seq_len = 96
total_batch_size = 384
num_iterations = {STEPS}
mesh = "1"
save_every = 2
eval_every = 3
eval_tokens = 384
sample_every = -1
[tokenizer]
vocab_size = 300
max_chars = 20000
[base]
depth = 1
aspect_ratio = 16
head_dim = 16
[mid]
mixture = ["conversations:200", "documents:50"]
val_mixture = ["conversations:20"]
[sft]
source = "mid"
num_iterations = {STEPS}
total_batch_size = -1
target_examples_per_step = 4
eval_steps = 2
eval_metrics_every = -1
mixture = ["conversations:40"]
val_mixture = ["conversations:20"]
[rl]
source = "sft"
num_iterations = {STEPS}
examples_per_step = 2
num_samples = 2
max_new_tokens = 8
eval_examples = 2
eval_samples = 2
mixture = ["exchanges:sums"]
val_mixture = ["exchanges:sums"]
"""


class Cell(NamedTuple):
    """One kind of run. `loader` is what makes its rows; rl has none: its rows are sampled."""

    stage: str
    recipe: str
    loader: str

    def __str__(self) -> str:
        return "-".join(self)

    def argv(self, file: pathlib.Path) -> list[str]:
        """Flags of `scripts.train`."""
        own = {"base": f"--loader={self.loader}", "sft": f"--packing={self.loader}"}
        more = [own[self.stage]] if self.stage in own else []
        return [f"--stage={self.stage}", f"--config={file}", f"--recipe={self.recipe}", *more]

    def directory(self, root: pathlib.Path) -> pathlib.Path:
        """Its checkpoints below a base directory."""
        return origin.directory(self.stage, TAG, root)


def cells() -> Iterator[Cell]:
    """Every stage, recipe and loader."""
    loaders = {"base": ("stream", "bestfit"), "mid": ("stream",),
               "sft": ("padded", "bestfit"), "rl": ("sampled",)}  # fmt: skip
    for recipe in RECIPES:
        for stage, kinds in loaders.items():
            yield from (Cell(stage, recipe, kind) for kind in kinds)


def chain(recipe: str) -> list[Cell]:
    """The runs that the others of a recipe start from, in their order."""
    return [Cell("base", recipe, "stream"), Cell("mid", recipe, "stream"),
            Cell("sft", recipe, "padded")]  # fmt: skip


def begin(cell: Cell, finished: pathlib.Path, root: pathlib.Path) -> pathlib.Path:
    """A new base directory `root` with all of `finished` but the cell's stage and those after it.

    Files are linked, not copied: all but the logs of a running stage are replaced, never changed.
    """
    shutil.rmtree(root, ignore_errors=True)
    later = list(paths.CHECKPOINTS)[list(paths.CHECKPOINTS).index(cell.stage) :]
    leave = shutil.ignore_patterns("log", "report", *(paths.CHECKPOINTS[s] for s in later))
    shutil.copytree(finished, root, ignore=leave, copy_function=os.link, symlinks=True)
    return root
