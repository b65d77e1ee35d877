"""The tasks that can be named, and where each has its rows. A new task is one line of `KNOWN`."""

import dataclasses
import difflib
import functools
import itertools
import logging
import pathlib
import re
from collections.abc import Callable, Sequence
from typing import NamedTuple

import pyarrow.parquet as pq

from nanochat_jax.config import paths
from nanochat_jax.tasks import arc, exchanges, gsm8k, humaneval, mmlu, smoltalk, spelling
from nanochat_jax.tasks.conversation import read_conversations
from nanochat_jax.tasks.hub import (
    RowSource,
    first_there,
    in_folder,
    local_files,
    read_rows,
    words,
    words_file,
)  # fmt: skip
from nanochat_jax.tasks.task import Mixture, Task

log = logging.getLogger(__name__)

NAME = re.compile(
    r"(?P<name>[\w-]+)(?::(?P<part>[A-Za-z_]\w*))?(?::(?:(?P<start>\d+)-)?(?P<stop>\d+))?"
    r"(?:\*(?P<repeats>\d+))?"
)
SPELLING_ROWS = {"train": 1000, "test": 256}  # where the name gives no number
ORIGINAL = "original"


class TaskSpec(NamedTuple):
    """What a name says: `name[:part][:rows][*repeats]`.

    Rows are a number (the first so many) or a range (`1000-3000`). A part is a split of the task
    (`MMLU:dev`), `original` for spelling with the original's overlapping words, or a kind of
    `exchanges` (`exchanges:sums`).
    """

    name: str
    part: str
    start: int
    stop: int | None
    repeats: int

    @classmethod
    def parse(cls, text: str) -> "TaskSpec":
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
class Options:
    """All that a name does not say."""

    root: pathlib.Path  # the base directory
    split: str  # `train`, or `val`: the rows that are held out
    stage: str = "mid"  # or `sft`: the embedded world has conversations for each
    task_data: str | None = None  # a folder of task files, instead of the Hugging Face hub
    execute: humaneval.Execute | None = None  # runs HumanEval's programs in a sandbox
    fetch: bool = True  # rows that are not here, from the Hugging Face hub


class Known(NamedTuple):
    """How a task is built, the parts that its name may give, and the files of its rows that people
    may change: what comes from the hub is none."""

    build: Callable[[TaskSpec, Options], Task]
    parts: tuple[str, ...] = ()
    files: Callable[[TaskSpec, Options], Sequence[pathlib.Path]] = lambda spec, options: ()


def build(
    names: Sequence[str], root: pathlib.Path, split: str, *,
    stage: str = "mid", task_data: str | None = None,
) -> Mixture:  # fmt: skip
    """The named tasks as one: mixed in a seeded order for `train`, one after another for `val`.

    The names are as `TaskSpec` reads them; rows bound a task before it is mixed. For the rest see
    `Options`. Raises ValueError for a wrong name, FileNotFoundError where its data are not there.
    """
    options = Options(root, split, stage, task_data)
    tasks: list[Task] = []
    for spec in map(TaskSpec.parse, names):
        tasks += [_build(spec, options)] * spec.repeats
    return Mixture(tasks, seed=42 if split == "train" else None)


def files(
    names: Sequence[str], root: pathlib.Path, split: str, *,
    stage: str = "mid", task_data: str | None = None,
) -> list[pathlib.Path]:  # fmt: skip
    """The files that `build` reads for the same arguments, each once; raises as it does."""
    options = Options(root, split, stage, task_data)
    found = (_known(spec).files(spec, options) for spec in map(TaskSpec.parse, names))
    return list(dict.fromkeys(itertools.chain.from_iterable(found)))


def build_one(
    name: str, root: pathlib.Path, split: str = "val", *, task_data: str | None = None,
    execute: humaneval.Execute | None = None, fetch: bool = True,
) -> Task:  # fmt: skip
    """One task by name; see `build`."""
    return _build(TaskSpec.parse(name), Options(root, split, "sft", task_data, execute, fetch))


def _known(spec: TaskSpec) -> Known:
    if spec.name not in KNOWN:
        near = difflib.get_close_matches(spec.name, KNOWN, 1, 0.5)
        hint = f", did you mean {near[0]}?" if near else ""
        raise ValueError(f"unknown task {spec.name!r}{hint} (known: {', '.join(KNOWN)})")
    known = KNOWN[spec.name]
    if spec.part and spec.part not in known.parts:
        expected = f"one of {', '.join(known.parts)}, or " if known.parts else ""
        raise ValueError(
            f"task {spec.name}:{spec.part}: expected {expected}a number of rows such as "
            f"{spec.name}:1000"
        )
    return known


def _build(spec: TaskSpec, options: Options) -> Task:
    task = _known(spec).build(spec, options)
    # Not an error: mixtures name the rows of the full data sets, and serve smaller ones as well.
    if spec.stop is not None and len(task) < spec.stop:
        log.info("%s has %d rows, fewer than %d", spec.name, len(task), spec.stop)
    chosen = task if spec.stop is None else task.view(spec.start, spec.stop)
    if not len(chosen):
        log.warning("%s has no row there: nothing of it is in the mixture", spec.name)
    return chosen


def _on_hub(
    make: Callable[..., Task], repo: str, subset: str, splits: Sequence[str], *files: str
) -> Known:
    """A task with rows on the hub; the first split is for training, the last is held out.

    `files` says where a folder of task files has them, with `{}` for the split.
    """

    def source_of(spec: TaskSpec, options: Options) -> RowSource:
        split = spec.part or splits[0 if options.split == "train" else -1]
        return RowSource(repo, subset, split, tuple(file.format(split) for file in files))

    def local(spec: TaskSpec, options: Options) -> Sequence[pathlib.Path]:
        folder = options.task_data
        return local_files(source_of(spec, options), folder) if folder else ()

    def build(spec: TaskSpec, options: Options) -> Task:
        source = source_of(spec, options)
        if options.split == "train" and source.split == "test":
            log.warning("%s trains on its test rows: its score will mean nothing", spec.name)
        # Programs need a sandbox, which lies above the tasks: whoever scores hands it in.
        extra = {"execute": options.execute} if make is humaneval.task else {}
        rows = read_rows(source, options.task_data, fetch=options.fetch)
        return make(rows, name=spec.name, **extra)

    return Known(build, tuple(splits), local)


def _spelling(make: Callable[..., Task], spec: TaskSpec, options: Options) -> Task:
    split = "train" if options.split == "train" else "test"
    # As many examples as are wanted: each is drawn by its number, so a longer task only adds.
    size = SPELLING_ROWS[split] if spec.stop is None else spec.stop
    listed = words(options.root, options.task_data)
    return make(listed, size, split, original=spec.part == ORIGINAL)


def _words_file(spec: TaskSpec, options: Options) -> Sequence[pathlib.Path]:
    return (words_file(options.root, options.task_data),)


def _of_file(find: Callable[[Options], pathlib.Path], spec: TaskSpec, options: Options) -> Task:
    """The conversations of a JSONL file, every line checked."""
    path = find(options)
    if not (rows := tuple(read_conversations(path))):
        raise ValueError(f"{path} holds no conversation, a JSON list of messages a line")
    return Task(spec.name, rows, lambda messages: {"messages": messages})


def _exchanges(spec: TaskSpec, options: Options) -> Task:
    return exchanges.task(read_conversations(_conversations(options)), spec.part)


def _documents(spec: TaskSpec, options: Options) -> Task:
    """The first `stop` texts of the training shards (None: all), as raw items."""
    folder = paths.data_in_use(options.root)
    if folder is None:
        raise FileNotFoundError(
            f"no documents in {options.root}; see `python -m scripts.data --help`"
        )
    texts: list[str] = []
    for path in paths.shards(folder)[:-1]:  # the last by name is validation
        texts += pq.read_table(path, columns=["text"])["text"].to_pylist()
        if spec.stop is not None and len(texts) >= spec.stop:
            break
    return Task(spec.name, texts[: spec.stop], lambda text: {"text": text})


def _conversations(options: Options) -> pathlib.Path:
    """What `scripts.data add --conversations` imported, else the embedded world's of a stage."""
    root, split = options.root, options.split
    own = paths.conversations(root, split)
    # The embedded world's would not say how good a model of one's own chats is.
    if split != "train" and _lacks(own) and not _lacks(paths.conversations(root, "train")):
        raise ValueError(
            f"{own.parent} holds conversations to train on, but none of them is held out to "
            "validate; add another: python -m scripts.data add --conversations PATH..."
        )
    world = paths.world_conversations(root, options.stage if split == "train" else "val")
    return first_there(
        [own, world],
        f"no conversations: neither {own} nor {world} exists; import your own with "
        "`python -m scripts.data add --conversations PATH...`",
    )


def _lacks(path: pathlib.Path) -> bool:
    return not path.exists() or path.stat().st_size == 0


def _identity(options: Options) -> pathlib.Path:
    """The file in the base directory, else in the folder of task files."""
    own = paths.identity(options.root)
    return first_there(
        [own, *in_folder(options.task_data, "identity", own.name)],
        f"no {own}: put conversations there in which the assistant says who it is (a JSON "
        "list of messages a line), or take `identity` out of --mixture",
    )


def _in_file(
    find: Callable[[Options], pathlib.Path], make: Callable[..., Task] | None = None,
    parts: tuple[str, ...] = (),
) -> Known:  # fmt: skip
    """A task whose rows are the conversations of one file."""
    build = make or functools.partial(_of_file, find)
    return Known(build, parts, lambda spec, options: (find(options),))


TWO, THREE = ("train", "test"), ("train", "validation", "test")
# MMLU's auxiliary_train are questions of other exams. HumanEval has test rows alone, so it is only
# evaluated.
KNOWN: dict[str, Known] = {
    "conversations": _in_file(_conversations),
    "documents": Known(_documents),
    "exchanges": _in_file(_conversations, _exchanges, exchanges.KINDS),
    "identity": _in_file(_identity),
    "ARC-Easy": _on_hub(arc.task, "allenai/ai2_arc", "ARC-Easy", THREE, "arc/ARC-Easy/{}"),
    "ARC-Challenge": _on_hub(
        arc.task, "allenai/ai2_arc", "ARC-Challenge", THREE, "arc/ARC-Challenge/{}"
    ),
    "MMLU": _on_hub(
        mmlu.task, "cais/mmlu", "all", ("auxiliary_train", "dev", "validation", "test"), "mmlu/{}"
    ),
    "GSM8K": _on_hub(gsm8k.task, "openai/gsm8k", "main", TWO, "gsm8k/{}"),
    "HumanEval": _on_hub(
        humaneval.task, "openai/openai_humaneval", "openai_humaneval", ("test",),
        "humaneval/{}", "humaneval/HumanEval",
    ),
    "SmolTalk": _on_hub(
        smoltalk.task, "HuggingFaceTB/smol-smoltalk", "default", TWO, "smoltalk/{}", "chat/{}"
    ),
    "SimpleSpelling": Known(
        functools.partial(_spelling, spelling.simple_spelling), (ORIGINAL,), _words_file
    ),
    "SpellingBee": Known(
        functools.partial(_spelling, spelling.spelling_bee), (ORIGINAL,), _words_file
    ),
}  # fmt: skip
