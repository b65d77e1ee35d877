"""The log of reinforcement learning: every rollout of every step, as JSON lines.

`<checkpoint directory>/rollouts/<step:06d>.jsonl` holds one step, a rollout a line, in the order of
the step's rows (the samples of a question follow each other):

- `step`, and `example`: the question's place in the mixture; `sample`: which of its samples.
- `task`, `question`: whose reward it was, and the last thing that the user says.
- `reply`: the text with its tool calls in the tokenizer's own markers (`<|python_start|>6*7
  <|python_end|><|output_start|>42<|output_end|>`), without the token that ends it.
- `reward`, and `advantage`: the reward less the mean over the question's samples.
- `tokens`: how many the reply has, forced ones and the ending one too; `ids` are they, and `mask`
  is 1 where one was trained, 0 where a tool wrote it (or where stopping is not to be trained).
- `finish`: `stop`, or `length` where it was cut.

A file is whole or it does not exist. A run that goes on at step n drops the files from n on and
writes them again, so that no step is held twice.
"""

import json
import pathlib
from collections.abc import Iterable, Mapping
from typing import Any

from nanochat_jax import files

FOLDER = "rollouts"


def write(directory: pathlib.Path, step: int, rollouts: Iterable[Mapping[str, Any]]) -> None:
    """Writes the file of one step into a checkpoint directory."""
    files.write_json_lines(_file(directory, step), rollouts)


def steps(directory: pathlib.Path) -> list[int]:
    """The steps whose rollouts a checkpoint directory holds, ascending."""
    found = (directory / FOLDER).glob("*.jsonl")
    return sorted(int(path.stem) for path in found if path.stem.isdigit())


def read(directory: pathlib.Path, step: int) -> list[dict[str, Any]]:
    """The rollouts of a step; raises FileNotFoundError where there are none."""
    text = _file(directory, step).read_text(encoding="utf-8")
    return [json.loads(line) for line in text.split("\n") if line]


def drop_from(directory: pathlib.Path, step: int) -> None:
    """Removes what was written at `step` and after it: a resumed run writes it again."""
    for later in steps(directory):
        if later >= step:
            _file(directory, later).unlink()


def _file(directory: pathlib.Path, step: int) -> pathlib.Path:
    return directory / FOLDER / f"{step:06d}.jsonl"
