"""The tasks of a `tasks_*.json`, built of the rows that it gives."""

import functools
import json
import re
import tempfile
from pathlib import Path
from typing import Any

from nanochat_jax.tasks import (
    Mixture,
    Task,
    arc,
    gsm8k,
    humaneval,
    mmlu,
    smoltalk,
    spelling,
)
from nanochat_jax.tasks.conversation import read_conversations
from tests.golden.conftest import load_json

OF_ROWS = {
    "allenai/ai2_arc": arc.task,
    "cais/mmlu": mmlu.task,
    "openai/gsm8k": gsm8k.task,
    "openai/openai_humaneval": humaneval.task,
    "HuggingFaceTB/smol-smoltalk": smoltalk.task,
}
MADE = {"SpellingBee": spelling.spelling_bee, "SimpleSpelling": spelling.simple_spelling}
PART = re.compile(r"(?P<name>[^\[]+)(?:\[(?P<cut>[^\]]*)\])?")


@functools.cache
def golden_task(path: Path, name: str) -> Task:
    """The task of that name, e.g. `GSM8K/main/train`, as the file's rows make it."""
    golden = load_json(path)
    given = golden["tasks"][name]
    if given["source"] is not None:
        return OF_ROWS[given["source"][0]](given["rows"])
    kind, _, split = name.partition("/")
    if kind in MADE:
        return MADE[kind](golden["words"], given["length"], split, original=True)
    own = Path(tempfile.mkdtemp()) / "own.jsonl"
    own.write_text(golden["identity_jsonl"], encoding="utf-8")
    return Task(kind, tuple(read_conversations(own)), lambda messages: {"messages": messages})


def golden_part(path: Path, text: str) -> Task:
    """A part of a mixture: `MMLU/all/test[start=1]`."""
    match = PART.fullmatch(text)
    cuts = (cut.split("=") for cut in (match["cut"] or "").split(",") if cut)
    bounds = {key.strip(): int(value) for key, value in cuts}
    task = golden_task(path, match["name"])
    return task.view(**bounds)


def golden_mixture(path: Path) -> Mixture:
    """The file's mixture."""
    return Mixture([golden_part(path, p) for p in load_json(path)["mixture"]["parts"]])


def golden_sequence(path: Path) -> Mixture:
    """The file's tasks one after another."""
    parts = [golden_part(path, p) for p in load_json(path)["sequence"]["parts"]]
    return Mixture(parts, seed=None)


def plain(value: Any) -> Any:
    """What the value is after a round through JSON."""
    return json.loads(json.dumps(value))
