"""Tasks joined into one."""

import random
from collections.abc import Mapping, Sequence
from typing import Any

from nanochat_jax.tasks.task import Task


class Mixture:
    """All rows of all tasks; name a task twice to see its rows twice.

    Args:
        seed: of the order, in which every task is met all the time and not one after another; it
            is the same on every machine, or ranks would not share the rows out without gaps.
            None: one task after another.

    Source: nanochat `tasks/common.py`, TaskMixture and TaskSequence.
    """

    def __init__(self, tasks: Sequence[Task], seed: int | None = 42):
        self.tasks = tuple(tasks)
        self.order = [(t, i) for t, task in enumerate(tasks) for i in range(len(task))]
        if seed is not None:
            random.Random(seed).shuffle(self.order)

    def __len__(self) -> int:
        return len(self.order)

    def __getitem__(self, index: int) -> Mapping[str, Any]:
        task, row = self.at(index)
        return task[row]

    def at(self, index: int) -> tuple[Task, int]:
        """The task that an index falls to, and the row there."""
        task, row = self.order[index]
        return self.tasks[task], row
