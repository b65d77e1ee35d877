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
from nanochat_jax.tasks.jsonl import open_text, read_values

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

    @property
    def cached(self) -> str:
        """The folder in which nanochat itself keeps the parquet files of this split."""
        return f"{self.repo.replace('/', '--')}/{self.subset}/{self.split}"


@dataclasses.dataclass(frozen=True)
class Table:
    """The rows of parquet files; each becomes a dict when it is read."""

    # As Arrow's columns: SmolTalk has 460,000 conversations, and few are needed at a time.
    table: pa.Table

    @classmethod
    def read(cls, files: Sequence[pathlib.Path]) -> "Table":
        """Raises ValueError naming the file that is no parquet."""
        tables = []
        for path in files:
            try:
                tables.append(pq.read_table(path))
            except pa.ArrowException as error:
                raise ValueError(f"{path} cannot be read as parquet: {error}") from None
        return cls(pa.concat_tables(tables))

    def __len__(self) -> int:
        return self.table.num_rows

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self.table.slice(index, 1).to_pylist()[0]


def read_rows(
    source: RowSource, task_data: str | pathlib.Path | None = None, *, fetch: bool = True
) -> Sequence[Any]:
    """The rows of a split, from the folder `task_data`, else from the hub.

    Args:
        fetch: over the network, where the hub's cache does not have them.

    Raises:
        FileNotFoundError: they are not there; the message says where they are looked for.
        ValueError: a damaged file.
    """
    if not task_data:
        return _from_hub(source, fetch)
    folder = folder_of(task_data)
    for name in (f"{path}{suffix}" for path in source.local for suffix in SUFFIXES):
        if (folder / name).exists():
            return _read(folder / name)
    if files := sorted((folder / source.cached).glob("*.parquet")):
        return Table.read(files)
    raise FileNotFoundError(_missing(source, folder))


def folder_of(task_data: str | pathlib.Path) -> pathlib.Path:
    """The folder of task files. Raises FileNotFoundError where there is none."""
    folder = pathlib.Path(task_data).expanduser()
    if not folder.is_dir():
        raise FileNotFoundError(
            f"--task-data {folder} is no folder; leave it out to use the Hugging Face hub"
        )
    return folder


def words(root: pathlib.Path, task_data: str | pathlib.Path | None = None) -> list[str]:
    """The words of the spelling tasks: `words_alpha.txt`, of the folder or the base directory.

    Raises:
        FileNotFoundError: it is in neither.
    """
    own = paths.words(root)
    given = in_folder(task_data or root, "english_words", own.name)
    for path in (*given, own):
        if path.exists():
            with open_text(path) as lines:
                return [word for line in lines if (word := line.strip())]
    raise FileNotFoundError(
        f"no list of words: looked for {', '.join(map(str, (*given, own)))}; type "
        f"`curl -L -o {own} {WORDS_URL}`, or put any list there, one word a line"
    )


def in_folder(task_data: str | pathlib.Path | None, sub: str, name: str) -> list[pathlib.Path]:
    """Where a folder of task files may have a file; nowhere without a folder."""
    if not task_data:
        return []
    folder = pathlib.Path(task_data).expanduser()
    return [at / f"{name}{suffix}" for at in (folder / sub, folder) for suffix in ("", ".gz")]


def _read(path: pathlib.Path) -> Sequence[Any]:
    if path.suffix == ".parquet":
        return Table.read([path])
    return list(read_values(path, lambda value: value))


def _missing(source: RowSource, folder: pathlib.Path) -> str:
    beside = (p for path in source.local for p in (folder / path).parent.glob("*"))
    there = sorted(p.name for p in beside if p.name.endswith(SUFFIXES))
    return (
        f"no rows of {source.repo}, {source.subset}, {source.split} in {folder}; expected "
        f"{source.local[0]}{{{','.join(SUFFIXES)}}} or {source.cached}/*.parquet"
        + (f", there is {', '.join(there)}" if there else "")
        + "; without --task-data they come from the Hugging Face hub"
    )


def _from_hub(source: RowSource, fetch: bool) -> Table:
    # Imported here: the package is large, and a folder of files needs none of it. The original's
    # `datasets` is larger still, and would fetch the same parquet files.
    from huggingface_hub import snapshot_download

    pattern = f"{source.subset}/{source.split}/*.parquet"
    what = f"{source.repo}, {source.subset}, {source.split}"
    if fetch:
        log.info("rows of %s from the Hugging Face hub (or its cache)", what)
    try:
        folder = snapshot_download(
            source.repo, repo_type="dataset", revision=REVISION, allow_patterns=pattern,
            local_files_only=not fetch,
        )  # fmt: skip
    except Exception as error:  # whatever its HTTP client of the day raises
        raise FileNotFoundError(
            f"could not have {what} from the Hugging Face hub: {_first_line(error)}; check the "
            f"network, or name a folder that holds {source.local[0]}.jsonl: --task-data DIR"
        ) from error
    files = sorted(pathlib.Path(folder).glob(pattern))
    if not files:
        raise FileNotFoundError(
            f"the Hugging Face hub has no {pattern} in {source.repo} at {REVISION}, or it is not "
            "in the cache and HF_HUB_OFFLINE is set; name a folder of files: --task-data DIR"
        )
    return Table.read(files)


def _first_line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
