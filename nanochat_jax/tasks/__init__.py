"""What a model learns from and is asked: one file a task, built by name."""

import pathlib
from collections.abc import Sequence

from nanochat_jax.tasks.humaneval import Execute
from nanochat_jax.tasks.mixture import Chain, Conversation, Mixture, Task, View
from nanochat_jax.tasks.names import KNOWN, Asked, Place, one
from nanochat_jax.tasks.rows import RowTask

__all__ = [
    "KNOWN", "Chain", "Conversation", "Mixture", "RowTask", "Task", "View", "build", "build_one",
]  # fmt: skip


def build(
    names: Sequence[str],
    root: pathlib.Path,
    split: str,
    *,
    stage: str = "mid",
    task_data: str | None = None,
) -> Task:
    """The named tasks as one: mixed in a seeded order for `train`, one after another for `val`.

    Args:
        names: `name[:part][:rows][*repeats]`: rows are a number (the first so many) or a range
            (`1000-3000`) and bound the task before it is mixed; a part is one of its splits
            (`MMLU:dev`), `original` for spelling with the original's overlapping words, or a kind
            of exchanges (`exchanges:sums`).
        root: the base directory.
        split: `train`, or `val`: the rows that are held out.
        stage: `mid` or `sft`: the embedded world has conversations for each.
        task_data: a folder of task files, instead of the Hugging Face hub.

    Raises:
        ValueError: an unknown name.
        FileNotFoundError: the data of a task are not there.
    """
    place = Place(root, split, stage, task_data)
    tasks: list[Task] = []
    for asked in map(Asked.parse, names):
        tasks += [one(asked, place)] * asked.repeats
    return Mixture(tasks) if split == "train" else Chain(tasks)


def build_one(
    name: str,
    root: pathlib.Path,
    split: str = "val",
    *,
    task_data: str | None = None,
    execute: Execute | None = None,
    fetch: bool = True,
) -> Task:
    """One task by name, with its marks: `kind`, `score` and `reward`; see `build`.

    Args:
        execute: runs HumanEval's programs in a sandbox.
        fetch: rows that are not here, from the Hugging Face hub.
    """
    return one(Asked.parse(name), Place(root, split, "sft", task_data, execute, fetch))
