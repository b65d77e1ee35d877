"""Every graded question on disk, one JSON line each: to look into, and to continue from.

The first line names the questions and the model. A file whose first line differs is replaced.
"""

import hashlib
import json
import logging
import os
import pathlib
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from tqdm import tqdm

from nanochat_jax import files
from nanochat_jax.hosts import group
from nanochat_jax.models.gpt import Model
from nanochat_jax.tokenizer import Tokenizer

log = logging.getLogger(__name__)

Grade = Mapping[str, Any]


def weights_digest(model: Model) -> str:
    """A digest of the config and all parameter bits, the same on any mesh."""
    # Summed on the devices: to hash a large model's bytes they would all have to come to the host.
    sums = jax.device_get(jax.tree.map(_bit_sum, model.params))
    text = repr(model.cfg) + repr(jax.tree_util.tree_leaves_with_path(sums))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


@jax.jit
def _bit_sum(x: jax.Array) -> jax.Array:
    """Sum of the bit patterns, each times an odd number of its place.

    Integers wrap around, so that the order of summation, and with it the mesh, changes nothing.
    """
    bits = {2: jnp.uint16, 4: jnp.uint32}[x.dtype.itemsize]
    words = jax.lax.bitcast_convert_type(x, bits).astype(jnp.uint32).reshape(-1)
    return jnp.sum(words * (2 * jnp.arange(words.size, dtype=jnp.uint32) + 1))


class AnswersLog:
    """The grades of one task, kept in the file `path` if there is one.

    Attributes:
        grades: question -> grade, of this evaluation and of an interrupted one before it.
    """

    def __init__(self, path: pathlib.Path | None = None, first: Mapping[str, Any] | None = None):
        self.grades: dict[int, Grade] = {}
        self._path = path
        if path is None:
            return
        # Grades of other weights or questions must not be mixed in: a score would look like one
        # model's and be of two.
        kept = files.read_json_lines(path)
        # What guessing scores is told to who reads the file; it makes no other questions.
        own = lambda line: {k: v for k, v in line.items() if k != "baseline"}
        if not kept or own(kept[0]) != own(first or {}):
            if kept:
                log.info("%s is of another model or other questions: replaced", path)
            kept = [first]
        self.grades = {line["question"]: line for line in kept[1:]}
        files.write_json_lines(path, kept)  # whole lines of this evaluation alone

    def todo(self, n: int) -> list[int]:
        """The questions, of `n`, without a grade."""
        return [i for i in range(n) if i not in self.grades]

    def add(self, grades: Mapping[int, Grade]) -> None:
        """Keeps grades, in the file before this returns."""
        lines = {i: {"question": i, **grade} for i, grade in grades.items()}
        self.grades |= lines
        # Appended, not rewritten: thousands of answers come a few at a time. A kill can cut the
        # last line off; a reader stops before it.
        if self._path is not None:
            with self._path.open("a", encoding="utf-8") as file:
                file.writelines(json.dumps(line) + "\n" for line in lines.values())


def logs_in(
    folder: str | os.PathLike[str] | None, model: Model, tokenizer: Tokenizer
) -> Callable[..., AnswersLog]:
    """Opens logs of a model in a folder: `(task, rows, suffix="", **settings)`; None: in none.

    Rows are JSON values; other rows, settings or weights are other answers.
    """
    if folder is None:
        return lambda *_, **__: AnswersLog()
    identity = {
        "weights": weights_digest(model), "dtype": str(jnp.dtype(model.gpt.dtype)),
        "tokenizer": tokenizer.hash[:16],
    }  # fmt: skip

    def opened(task: str, rows: Iterable[Any], suffix: str = "", **settings: Any) -> AnswersLog:
        rows = list(rows)
        named = {"task": task, "questions": len(rows), "rows": digest_of(rows)}
        about = named | settings | identity
        path = pathlib.Path(folder, f"{task.replace('/', '_')}{suffix}.jsonl")
        # Of several processes one writes, and what it found there is what none does again.
        log = AnswersLog(path, about) if group.chief() else AnswersLog()
        log.grades = group.first(lambda: log.grades)
        return log

    return opened


def digest_of(rows: Sequence[Any]) -> str:
    """What tells the rows of a task, JSON values, from others."""
    return hashlib.sha256(json.dumps(rows, sort_keys=True).encode()).hexdigest()[:16]


def progress_bar(what: str, total: int, before: int = 0) -> tqdm:
    """A bar over `total` questions, of which `before` were answered earlier."""
    # In a terminal it moves; in a log it is a plain line now and then.
    calm = {} if sys.stderr.isatty() else {"mininterval": 15, "ascii": True, "ncols": 100}
    calm["disable"] = not group.chief()
    return tqdm(total=total, initial=before, desc=what, unit="question", leave=None, **calm)
