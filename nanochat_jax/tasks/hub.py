"""Rows of the tasks: from a folder of files, or as parquet from the Hugging Face hub.

On the hub the rows are read at the revision `refs/convert/parquet`, which every public data set
has: `<subset>/<split>/<number>.parquet`. Cache, checksums, tokens and offline mode are those of
`huggingface_hub` (`HF_HOME`, `HF_TOKEN`, `HF_HUB_OFFLINE`, `HF_ENDPOINT`).
"""

import dataclasses
import logging
import pathlib
from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from nanochat_jax.config import paths
from nanochat_jax.tasks.jsonl import read_values
from nanochat_jax.texts import read_text

log = logging.getLogger(__name__)

# Where the hub keeps what it converted, so that no loading script of a data set has to be run.
REVISION = "refs/convert/parquet"
SUFFIXES = (".parquet", ".jsonl", ".jsonl.gz")
WORDS_URL = "https://raw.githubusercontent.com/dwyl/english-words/refs/heads/master/words_alpha.txt"


@dataclasses.dataclass(frozen=True)
class RowSource:
    """Where the rows of one split lie: on the hub, and in a folder of task files."""

    repo: str
    subset: str
    split: str
    local: tuple[str, ...]
    """paths in the folder, without suffix; the first that is there is read"""

    def __str__(self) -> str:
        return f"{self.repo}, {self.subset}, {self.split}"

    @property
    def on_hub(self) -> str:
        return f"{self.subset}/{self.split}/*.parquet"

    @property
    def cached(self) -> str:
        """The files of this split where nanochat itself keeps them."""
        return f"{self.repo.replace('/', '--')}/{self.on_hub}"


class Table:
    """The rows of parquet files; each becomes a dict when it is read.

    Raises ValueError naming the file that is no parquet.
    """

    def __init__(self, files: Sequence[pathlib.Path]):
        tables = []
        for path in files:
            try:
                tables.append(pq.read_table(path))
            except pa.ArrowException as error:
                raise ValueError(f"{path} cannot be read as parquet: {error}") from None
        # As Arrow's columns: SmolTalk has 460,000 conversations, and few are needed at a time.
        self._table = pa.concat_tables(tables)

    def __len__(self) -> int:
        return self._table.num_rows

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self._table.slice(index, 1).to_pylist()[0]


def read_rows(
    source: RowSource, task_data: str | pathlib.Path | None = None, *, fetch: bool = True
) -> Sequence[Any]:
    """The rows of a split, from the folder `task_data`, else from the hub.

    `fetch`: over the network, where the hub's cache does not have them. Raises FileNotFoundError
    with where they are looked for, ValueError naming a damaged file.
    """
    if not task_data:
        return _from_hub(source, fetch)
    first, *_ = files = local_files(source, task_data)
    parquet = first.suffix == ".parquet"
    rows = Table(files) if parquet else list(read_values(first, lambda value: value))
    if not len(rows):
        raise ValueError(f"{first} holds no row; put rows of {source} there, or delete it")
    return rows


def local_files(source: RowSource, task_data: str | pathlib.Path) -> list[pathlib.Path]:
    """The files of a split in the folder `task_data`; raises FileNotFoundError without any."""
    folder = folder_of(task_data)
    names = (folder / f"{name}{suffix}" for name in source.local for suffix in SUFFIXES)
    if found := next((path for path in names if path.exists()), None):
        return [found]
    # What macOS puts beside files on some drives, `._0000.parquet`, is none.
    if files := sorted(p for p in folder.glob(source.cached) if not paths.is_hidden(p)):
        return files
    beside = (p.name for name in source.local for p in (folder / name).parent.glob("*"))
    there = ", ".join(sorted(name for name in beside if name.endswith(SUFFIXES)))
    raise FileNotFoundError(
        f"no rows of {source} in {folder}; expected {source.local[0]}{{{','.join(SUFFIXES)}}} or "
        f"{source.cached}{', there is ' if there else ''}{there}; without --task-data they come "
        "from the Hugging Face hub"
    )


def folder_of(task_data: str | pathlib.Path) -> pathlib.Path:
    """The folder of task files. Raises FileNotFoundError where there is none."""
    folder = pathlib.Path(task_data).expanduser()
    if not folder.is_dir():
        raise FileNotFoundError(
            f"--task-data {folder} is no folder; leave it out to use the Hugging Face hub"
        )
    return folder


def words(root: pathlib.Path, task_data: str | pathlib.Path | None = None) -> list[str]:
    """The words of the spelling tasks; raises as `words_file`, and ValueError without a word."""
    path = words_file(root, task_data)
    if listed := [word for line in read_text(path).split("\n") if (word := line.strip())]:
        return listed
    raise ValueError(f"{path} holds no word; put any list there, one word a line")


def words_file(root: pathlib.Path, task_data: str | pathlib.Path | None = None) -> pathlib.Path:
    """`words_alpha.txt`, of the folder or the base directory; raises FileNotFoundError."""
    own = paths.words(root)
    places = list(dict.fromkeys([*in_folder(task_data or root, "english_words", own.name), own]))
    return first_there(
        places,
        f"no list of words: looked for {', '.join(map(str, places))}; type `curl -L -o {own} "
        f"{WORDS_URL}`, or put any list there, one word a line",
    )


def in_folder(task_data: str | pathlib.Path | None, sub: str, name: str) -> list[pathlib.Path]:
    """Where a folder of task files may have a file; nowhere without a folder."""
    folders = [pathlib.Path(task_data, sub), pathlib.Path(task_data)] if task_data else []
    return [at.expanduser() / f"{name}{suffix}" for at in folders for suffix in ("", ".gz")]


def first_there(places: Sequence[pathlib.Path], message: str) -> pathlib.Path:
    """The first file that exists; where none does, raises FileNotFoundError with the message."""
    for path in places:
        if path.exists():
            return path
    raise FileNotFoundError(message)


def _from_hub(source: RowSource, fetch: bool) -> Table:
    # Imported here: the package is large, and a folder of files needs none of it. The original's
    # `datasets` is larger still, and would fetch the same parquet files.
    from huggingface_hub import snapshot_download

    if fetch:
        log.info("rows of %s from the Hugging Face hub (or its cache)", source)
    try:
        folder = snapshot_download(
            source.repo, repo_type="dataset", revision=REVISION, allow_patterns=source.on_hub,
            local_files_only=not fetch,
        )  # fmt: skip
    except Exception as error:  # whatever its HTTP client of the day raises
        why = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise FileNotFoundError(
            f"could not have {source} from the Hugging Face hub: {why}; check the network, or name "
            f"a folder that holds {source.local[0]}.jsonl: --task-data DIR"
        ) from error
    if files := sorted(pathlib.Path(folder).glob(source.on_hub)):
        return Table(files)
    raise FileNotFoundError(
        f"the Hugging Face hub has no {source.on_hub} in {source.repo} at {REVISION}, or it is not "
        "in the cache and HF_HUB_OFFLINE is set; name a folder of files: --task-data DIR"
    )
