"""The tasks that can be named, and where each has its rows."""

import dataclasses
import difflib
import functools
import logging
import pathlib
import re
from collections.abc import Callable, Sequence
from typing import Any

from nanochat_jax.tasks import arc, exchanges, gsm8k, humaneval, mmlu, smoltalk, spelling
from nanochat_jax.tasks.hub import Source, rows, words
from nanochat_jax.tasks.local import Conversations, Documents
from nanochat_jax.tasks.mixture import Task, View

log = logging.getLogger(__name__)

NAME = re.compile(
    r"(?P<name>[\w-]+)(?::(?P<part>[A-Za-z_]\w*))?(?::(?:(?P<start>\d+)-)?(?P<stop>\d+))?"
    r"(?:\*(?P<repeats>\d+))?"
)
SPELLING_ROWS = {"train": 1000, "test": 256}  # where the name gives no number
ORIGINAL = "original"


@dataclasses.dataclass(frozen=True)
class Asked:
    """What a name asks for: `name[:part][:rows][*repeats]`.

    `part` is a split of the task (`MMLU:dev`), `original` for the spelling tasks, or what kind of
    `exchanges` (`exchanges:sums`).
    """

    name: str
    part: str
    start: int
    stop: int | None
    repeats: int

    @classmethod
    def parse(cls, text: str) -> "Asked":
        """Raises ValueError for a text of another form."""
        found = NAME.fullmatch(text)
        if found is None:
            raise ValueError(
                f"task {text!r}: expected name[:part][:rows][*repeats], such as GSM8K*2, "
                "SmolTalk:10000, MMLU:dev or documents:1000-3000"
            )
        stop = int(found["stop"]) if found["stop"] else None
        repeats = int(found["repeats"] or 1)
        return cls(found["name"], found["part"] or "", int(found["start"] or 0), stop, repeats)


@dataclasses.dataclass(frozen=True)
class Place:
    """All that a name does not say."""

    root: pathlib.Path
    split: str
    """train, or val: what is held out"""
    stage: str = "mid"
    task_data: str | None = None
    execute: humaneval.Execute | None = None
    fetch: bool = True


@dataclasses.dataclass(frozen=True)
class OnHub:
    """A task with rows on the hub; the first split is for training, the last for examination."""

    make: Callable[..., Task]
    repo: str
    subset: str
    local: tuple[str, ...]
    splits: tuple[str, ...]

    def source(self, split: str) -> Source:
        local = tuple(path.format(split) for path in self.local)
        return Source(self.repo, self.subset, split, local)


EXAM, TWO = ("train", "validation", "test"), ("train", "test")
ON_HUB = {
    "ARC-Easy": OnHub(arc.task, "allenai/ai2_arc", "ARC-Easy", ("arc/ARC-Easy/{}",), EXAM),
    "ARC-Challenge": OnHub(
        arc.task, "allenai/ai2_arc", "ARC-Challenge", ("arc/ARC-Challenge/{}",), EXAM
    ),
    "MMLU": OnHub(
        mmlu.task, "cais/mmlu", "all", ("mmlu/{}",),
        ("auxiliary_train", "dev", "validation", "test"),
    ),
    "GSM8K": OnHub(gsm8k.task, "openai/gsm8k", "main", ("gsm8k/{}",), TWO),
    "HumanEval": OnHub(
        humaneval.task, "openai/openai_humaneval", "openai_humaneval",
        ("humaneval/{}", "humaneval/HumanEval"), ("test",),
    ),
    "SmolTalk": OnHub(
        smoltalk.task, "HuggingFaceTB/smol-smoltalk", "default", ("smoltalk/{}", "chat/{}"), TWO
    ),
}  # fmt: skip
SPELLING = {"SimpleSpelling": spelling.simple_spelling, "SpellingBee": spelling.spelling_bee}
OWN = ("conversations", "documents", "exchanges", "identity")
KNOWN = (*OWN, *ON_HUB, *SPELLING)


def one(asked: Asked, place: Place) -> Task:
    """The task of a name, cut to its rows.

    Raises:
        ValueError: an unknown name or part; FileNotFoundError: the data are not there.
    """
    task = _whole(asked, place)
    if asked.stop is None:
        return task
    if len(task) < asked.stop:
        log.info("%s has %d rows, fewer than %d", asked.name, len(task), asked.stop)
    return View(task, asked.start, asked.stop)


def _whole(asked: Asked, place: Place) -> Task:
    if asked.name in ON_HUB:
        return _on_hub(ON_HUB[asked.name], asked, place)
    if asked.name in SPELLING:
        return _spelling(asked, place)
    if asked.name not in OWN:
        near = difflib.get_close_matches(asked.name, KNOWN, 1, 0.5)
        hint = f", did you mean {near[0]}?" if near else ""
        raise ValueError(f"unknown task {asked.name!r}{hint} (known: {', '.join(KNOWN)})")
    if asked.name == "exchanges":
        _check_part(asked, exchanges.KINDS)
        return exchanges.task(Conversations(_conversations(place)).rows, asked.part)
    _check_part(asked, ())
    if asked.name == "documents":
        return Documents(_shards(place.root), asked.stop)
    own = _conversations if asked.name == "conversations" else _identity
    return Conversations(own(place))


def _on_hub(known: OnHub, asked: Asked, place: Place) -> Task:
    _check_part(asked, known.splits)
    split = asked.part or known.splits[0 if place.split == "train" else -1]
    if place.split == "train" and split == "test":
        log.warning("%s trains on its test rows: its score will mean nothing", asked.name)
    make = known.make
    if make is humaneval.task:
        make = functools.partial(make, execute=place.execute)
    return make(rows(known.source(split), place.task_data, fetch=place.fetch), name=asked.name)


def _spelling(asked: Asked, place: Place) -> Task:
    _check_part(asked, (ORIGINAL,))
    split = "train" if place.split == "train" else "test"
    size = SPELLING_ROWS[split] if asked.stop is None else asked.stop
    listed = words(place.root, place.task_data)
    return SPELLING[asked.name](listed, size, split, original=asked.part == ORIGINAL)


def _check_part(asked: Asked, parts: Sequence[str]) -> None:
    if asked.part and asked.part not in parts:
        expected = f"one of {', '.join(parts)}, or " if parts else ""
        raise ValueError(
            f"task {asked.name}:{asked.part}: expected {expected}a number of rows such as "
            f"{asked.name}:1000"
        )


def _conversations(place: Place) -> pathlib.Path:
    """What `scripts.data add --conversations` imported, else the embedded world's of a stage."""
    root, split = place.root, place.split
    own = root / "conversations" / f"{split}.jsonl"
    stage = place.stage if split == "train" else "val"
    world = root / "world_data" / f"conversations_{stage}.jsonl"
    for path in (own, world):
        if path.exists():
            return path
    raise FileNotFoundError(
        f"no conversations: neither {own} nor {world} exists; import your own with "
        "`python -m scripts.data add --conversations PATH...`"
    )


def _identity(place: Place) -> pathlib.Path:
    """The file in the base directory, else in the folder of task files."""
    name = "identity_conversations.jsonl"
    paths = [place.root / name]
    if place.task_data:
        folder = pathlib.Path(place.task_data).expanduser()
        paths += [folder / f"{part}{name}{z}" for part in ("identity/", "") for z in ("", ".gz")]
    for path in paths:
        if path.exists():
            return path
    raise FileNotFoundError(
        f"no {paths[0]}: put conversations there in which the assistant says who it is (a JSON "
        "list of messages a line), or take `identity` out of --mixture"
    )


def _shards(root: pathlib.Path) -> tuple[pathlib.Path, ...]:
    """The training shards in use, last one by name left out: it is validation."""
    for folder in ("base_data", "world_data"):
        files: list[Any] = sorted((root / folder).glob("*.parquet"))
        if files:
            return tuple(files[:-1])
    raise FileNotFoundError(f"no documents in {root}; see `python -m scripts.data --help`")
