"""What a model learns from and is asked: one file a task, built by name."""

import pathlib
import re
from collections.abc import Sequence

from nanochat_jax.tasks.local import Conversations, Documents
from nanochat_jax.tasks.mixture import Chain, Conversation, Mixture, Task, View

__all__ = ["Chain", "Conversation", "Mixture", "Task", "View", "build", "build_one"]

NAME = re.compile(r"(?P<name>[\w-]+)(?::(?P<detail>[\w-]+))?(?:\*(?P<repeats>\d+))?")


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
        names: `name[:detail][*repeats]`; the detail is a number of rows, a
            range of them (`1000-3000`), or a task's subset.
        root: the base directory.
        stage: `mid` or `sft`: the embedded world has conversations for each.

    Raises:
        ValueError: an unknown name.
        FileNotFoundError: the data of a task are not there.
    """
    tasks: list[Task] = []
    for text in names:
        match = NAME.fullmatch(text)
        if match is None:
            raise ValueError(f"task {text!r}: expected name[:detail][*repeats], e.g. GSM8K*2")
        task = build_one(match["name"], match["detail"], root, split, stage, task_data)
        tasks += [task] * int(match["repeats"] or 1)
    return Mixture(tasks) if split == "train" else Chain(tasks)


def build_one(
    name: str,
    detail: str | None,
    root: pathlib.Path,
    split: str,
    stage: str,
    task_data: str | None,
) -> Task:
    """One task by name; see `build`."""
    start, stop = rows_of(detail)
    makers = {
        "conversations": lambda: conversations(root, split, stage),
        "documents": lambda: Documents(_shards(root), stop),
        "identity": lambda: Conversations(root / "identity_conversations.jsonl"),
    }
    if name not in makers:
        raise ValueError(f"unknown task {name!r}; known: {', '.join(makers)}")
    task = makers[name]()
    return task if stop is None else View(task, start, stop)


def rows_of(detail: str | None) -> tuple[int, int | None]:
    """(start, stop) of `1000` (the first so many), `1000-3000`, or anything else (all rows)."""
    match = re.fullmatch(r"(?:(\d+)-)?(\d+)", detail or "")
    return (int(match[1] or 0), int(match[2])) if match else (0, None)


def conversations(root: pathlib.Path, split: str, stage: str) -> Task:
    """What `scripts.data add --conversations` imported, else the embedded world's of a stage."""
    own = root / "conversations" / f"{split}.jsonl"
    if own.exists():
        return Conversations(own)
    world = root / "world_data" / f"conversations_{stage if split == 'train' else 'val'}.jsonl"
    if world.exists():
        return Conversations(world)
    raise FileNotFoundError(
        f"no conversations: neither {own} nor {world} exists; import your own with "
        "`python -m scripts.data add --conversations PATH...`"
    )


def _shards(root: pathlib.Path) -> tuple[pathlib.Path, ...]:
    """The training shards in use, last one by name left out: it is validation."""
    for folder in ("base_data", "world_data"):
        files = sorted((root / folder).glob("*.parquet"))
        if files:
            return tuple(files[:-1])
    raise FileNotFoundError(f"no documents in {root}; see `python -m scripts.data --help`")
