"""The evaluation bundle on disk: which tasks there are, and their rows in the original's order.

Layout: `core.yaml` (the tasks), `eval_meta_data.csv` (what guessing scores), `eval_data/` (JSON
lines, gzipped or not). Source: nanochat `scripts/base_eval.py`, `nanochat/core_eval.py`.
"""

import collections
import csv
import dataclasses
import io
import os
import pathlib
import random
from collections.abc import Mapping
from typing import Any

import yaml

from nanochat_jax.tasks.jsonl import loads
from nanochat_jax.texts import read_lines, read_text

Item = Mapping[str, Any]

SHUFFLE_SEED = 1337
# What an entry of core.yaml must hold. The bundle comes from elsewhere and may be edited by hand:
# it is checked whole, before hours of scoring.
ENTRY = ("label", "icl_task_type", "dataset_uri", "num_fewshot")
# What a row of each kind must hold, and which field lists the options to choose from.
FIELDS = {
    "multiple_choice": {"query": str, "choices": list, "gold": int},
    "schema": {"context_options": list, "continuation": str, "gold": int},
    "language_modeling": {"context": str, "continuation": str},
}
OPTIONS = {"multiple_choice": "choices", "schema": "context_options"}


@dataclasses.dataclass(frozen=True)
class CoreTask:
    """One task of the bundle."""

    label: str
    kind: str  # `multiple_choice`, `schema` or `language_modeling`
    shots: int  # solved examples before each question
    delimiter: str  # what stands between a context and its continuation
    baseline: float  # what guessing scores, in percent
    path: pathlib.Path  # its rows, as `core.yaml` names them


def read(folder: pathlib.Path) -> list[CoreTask]:
    """The tasks in the order of `core.yaml`; their files may be missing.

    Raises:
        FileNotFoundError: no bundle there.
        ValueError: a task of an unknown kind, without its baseline, incomplete or named twice.
    """
    path = folder / "core.yaml"
    if not path.exists():
        raise FileNotFoundError(
            f"no CORE tasks in {folder}: expected core.yaml, eval_meta_data.csv and eval_data/ as "
            "in nanochat's eval_bundle.zip; unpack that there"
        )
    try:
        table = yaml.safe_load(read_text(path)) or {}
    except yaml.YAMLError as error:
        raise ValueError(f"{path} is not valid YAML: {error}") from None
    entries = (table.get("icl_tasks") if isinstance(table, dict) else None) or []
    baselines = _baselines(folder / "eval_meta_data.csv")
    tasks = [_task(folder, entry, baselines) for entry in entries]
    twice = {label for label, n in collections.Counter(t.label for t in tasks).items() if n > 1}
    if twice:
        raise ValueError(f"core.yaml names {', '.join(sorted(twice))} twice; delete one of each")
    return tasks


def _baselines(path: pathlib.Path) -> dict[str, float]:
    """Task -> percent."""
    if not path.exists():
        raise FileNotFoundError(f"{path} is missing: it says what guessing scores, task by task")
    lines = io.StringIO(read_text(path), newline="")
    return {row["Eval Task"]: float(row["Random baseline"]) for row in csv.DictReader(lines)}


def _task(folder: pathlib.Path, entry: Item, baselines: Mapping[str, float]) -> CoreTask:
    if missing := [key for key in ENTRY if entry.get(key) in (None, [])]:
        raise ValueError(f"core.yaml: the task {dict(entry)} has no {', '.join(missing)}; add it")
    label, kind, uri, shots = (entry[key] for key in ENTRY)
    if kind not in FIELDS:
        known = ", ".join(FIELDS)
        raise ValueError(f"core.yaml: {label} is of the kind {kind!r}; known are {known}")
    if label not in baselines:
        raise ValueError(f"eval_meta_data.csv has no random baseline for {label}; add its row")
    delimiter, path = entry.get("continuation_delimiter", " "), folder / "eval_data" / str(uri)
    # By the names alone: a file there may be a link to where a cache keeps it.
    if not pathlib.Path(os.path.normpath(path)).is_relative_to(folder / "eval_data"):
        raise ValueError(f"core.yaml: {label} names {uri!r}, which is not inside of eval_data/")
    return CoreTask(label, kind, shots[0], delimiter, baselines[label], path)


def file_of(task: CoreTask) -> pathlib.Path | None:
    """Where its rows lie, gzipped or not; None: nowhere."""
    zipped = task.path.with_name(task.path.name + ".gz")
    return next((path for path in (task.path, zipped) if path.exists()), None)


def rows(task: CoreTask, max_per_task: int = -1) -> list[Item]:
    """Its rows, shuffled as the original does and then cut to `max_per_task` (-1: all).

    Raises:
        FileNotFoundError: no file; ValueError: a broken row, by file and line.
    """
    path = file_of(task)
    if path is None:
        raise FileNotFoundError(f"{task.path} is missing")
    lines = enumerate(read_lines(path), 1)
    found = [_row(task, f"{path}:{n}", line) for n, line in lines if line.strip()]
    # Shuffled before the cut: the first rows of a file need not be like its others.
    random.Random(SHUFFLE_SEED).shuffle(found)
    return found[:max_per_task] if max_per_task > 0 else found


def _row(task: CoreTask, where: str, line: str) -> Item:
    try:
        row = loads(line)
    except ValueError as error:
        raise ValueError(f"{where}: {error}; mend or delete the line") from None
    for name, kind in FIELDS[task.kind].items():
        if not isinstance(row, dict) or not isinstance(row.get(name), kind):
            raise ValueError(f"{where}: a {task.kind} row needs {name!r}, of type {kind.__name__}")
    options = row.get(OPTIONS.get(task.kind))
    if options is not None and not 0 <= row["gold"] < len(options):
        raise ValueError(f"{where}: gold is {row['gold']}, but there are {len(options)} options")
    return row
