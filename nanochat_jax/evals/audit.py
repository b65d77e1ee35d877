"""Every marked question on disk, one JSON line each: to look into, and to go on from.

The first line says what was asked of which model. A file whose first line differs is begun anew.
"""

import hashlib
import json
import logging
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from nanochat_jax.models.gpt import Model
from nanochat_jax.tokenizer import Tokenizer

log = logging.getLogger(__name__)

Mark = Mapping[str, Any]


def of_model(model: Model, tokenizer: Tokenizer) -> dict[str, str]:
    """What decides a model's answers: part of the first line."""
    return {
        "weights": weights_digest(model), "dtype": str(jnp.dtype(model.gpt.dtype)),
        "tokenizer": tokenizer.hash[:16],
    }  # fmt: skip


def rows_digest(rows: Sequence[Any]) -> str:
    """A number of what is asked: JSON values, in their order."""
    return hashlib.sha256(json.dumps(rows, sort_keys=True).encode()).hexdigest()[:16]


def weights_digest(model: Model) -> str:
    """A number of the config and all parameter bits, the same on any mesh."""
    sums = jax.device_get(jax.tree.map(_bit_sum, model.params))
    text = repr(model.cfg) + repr(jax.tree_util.tree_leaves_with_path(sums))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


@jax.jit
def _bit_sum(x: jax.Array) -> jax.Array:
    """Sum of the bit patterns, each times an odd number of its place; wraps around, so exact."""
    bits = {2: jnp.uint16, 4: jnp.uint32}[x.dtype.itemsize]
    words = jax.lax.bitcast_convert_type(x, bits).astype(jnp.uint32).reshape(-1)
    return jnp.sum(words * (2 * jnp.arange(words.size, dtype=jnp.uint32) + 1))


class Audit:
    """The marks of one task, kept in `<name>.jsonl` if there is a folder for it.

    Attributes:
        done: question -> mark, of this evaluation and of an interrupted one before it.
    """

    def __init__(self, folder: pathlib.Path | None, name: str, first: Mapping[str, Any]):
        self.done: dict[int, Mark] = {}
        self._path = folder / f"{name.replace('/', '_')}.jsonl" if folder else None
        if self._path is not None:
            self._take_up(first)

    def _take_up(self, first: Mapping[str, Any]) -> None:
        """Reads what is there, and leaves the file with whole lines of this evaluation alone."""
        kept = _whole_lines(self._path)
        if not kept or kept[0] != first:
            if kept:
                log.info("%s is of another model or other questions: begun anew", self._path)
            kept = [dict(first)]
        self.done = {line["question"]: line for line in kept[1:]}
        self._path.parent.mkdir(parents=True, exist_ok=True)
        part = self._path.with_name(self._path.name + ".tmp")
        part.write_text("".join(map(_line, kept)), encoding="utf-8")
        part.replace(self._path)

    def add(self, marks: Mapping[int, Mark]) -> None:
        """Keeps marks, in the file before this returns."""
        lines = {i: {"question": i, **mark} for i, mark in marks.items()}
        self.done |= lines
        if self._path is not None:
            with self._path.open("a", encoding="utf-8") as file:
                file.writelines(map(_line, lines.values()))


def _line(value: Mapping[str, Any]) -> str:
    return json.dumps(value) + "\n"


def _whole_lines(path: pathlib.Path) -> list[dict[str, Any]]:
    """The lines of a file up to the first that was cut off; none without a file."""
    lines = []
    for text in path.read_text(encoding="utf-8").splitlines() if path.exists() else []:
        try:
            lines.append(json.loads(text))
        except json.JSONDecodeError:
            break
    return lines
