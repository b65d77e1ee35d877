"""What a task is, and tasks joined into one."""

import random
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

Conversation = Mapping[str, Any]


class Task(Protocol):
    """Rows to learn from: conversations `{"messages": [...]}` or raw texts `{"text": ...}`."""

    def __len__(self) -> int: ...
    def __getitem__(self, index: int) -> Conversation: ...


class Mixture:
    """All rows of all tasks in one seeded order, the same on every machine.

    Name a task twice to see its rows twice. Source: nanochat `tasks/common.py`.
    """

    def __init__(self, tasks: Sequence[Task], seed: int = 42):
        self.tasks = tuple(tasks)
        self.order = [(t, i) for t, task in enumerate(tasks) for i in range(len(task))]
        random.Random(seed).shuffle(self.order)

    def __len__(self) -> int:
        return len(self.order)

    def __getitem__(self, index: int) -> Conversation:
        task, row = self.at(index)
        return task[row]

    def at(self, index: int) -> tuple[Task, int]:
        """The task that an index falls to, and the row there."""
        task, row = self.order[index]
        return self.tasks[task], row


class Chain:
    """All rows of the first task, then all of the next. Source: nanochat `TaskSequence`."""

    def __init__(self, tasks: Sequence[Task]):
        self.tasks = tuple(tasks)
        self.order = [(t, i) for t, task in enumerate(tasks) for i in range(len(task))]

    def __len__(self) -> int:
        return len(self.order)

    def __getitem__(self, index: int) -> Conversation:
        task, row = self.at(index)
        return task[row]

    def at(self, index: int) -> tuple[Task, int]:
        """The task that an index falls to, and the row there."""
        task, row = self.order[index]
        return self.tasks[task], row


class View:
    """Rows `start, start + step, ...` before `stop` of a task, marked as the task marks them.

    Source: nanochat `Task` slices.
    """

    def __init__(self, task: Task, start: int = 0, stop: int | None = None, step: int = 1):
        self.task = task
        self.name, self.kind = getattr(task, "name", ""), getattr(task, "kind", None)
        self.score, self.reward = getattr(task, "score", None), getattr(task, "reward", None)
        self.rows = range(start, len(task) if stop is None else min(stop, len(task)), step)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Conversation:
        return self.task[self.rows[index]]
