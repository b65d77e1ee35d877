"""Parquet shards of documents: where they lie, what they hold, how they are written.

A folder of `*.parquet` files with one string column `text`; the last by name is validation: a
rule that needs no manifest, so files dropped in by hand work too.
Source: nanochat `nanochat/dataset.py`.
"""

import dataclasses
import itertools
import pathlib
import re
from collections.abc import Iterable, Iterator, Sequence

import pyarrow as pa
import pyarrow.parquet as pq

from nanochat_jax.config import paths
from nanochat_jax.data import waiting
from nanochat_jax.files import whole_file

# Documents of a row group, as in the original's shards. It is what a rank reads at a time and what
# the original's position counts, so another number would be another order of data.
ROW_GROUP = 1024
AGAIN = "get it again: python -m scripts.data download (or add)"
# Of texts of one's own: it sorts after every other shard, so it is the one that validates.
VAL_NAME = "shard_99999.parquet"
NUMBERED = re.compile(r"shard_(\d+)\.parquet")


@dataclasses.dataclass(frozen=True)
class Shards:
    """The files in use: `source` is the folder's name, `base_data` or `world_data`."""

    train: tuple[pathlib.Path, ...]
    val: pathlib.Path
    source: str


def find_shards(root: pathlib.Path) -> Shards:
    """The shards to train on; raises as `listed`, and ValueError where they hold no document."""
    return with_documents(listed(root))


def summary(found: Shards) -> str:
    """What a run reads, and what lies beside it unread, for people."""
    count, hidden = len(found.train), paths.hidden_shards(found.val.parent)
    left = ", ".join(path.name for path in hidden[:3]) + ", ..." * (len(hidden) > 3)
    return (
        f"{found.source}: {count} shard{'s' * (count > 1)} to train on, 1 to validate"
        + f"; hidden files left out: {left}" * bool(hidden)
    )


def with_documents(found: Shards) -> Shards:
    """What was given; raises ValueError if nothing is there to train on, or to validate."""
    for files, use in ((found.train, "train on"), ((found.val,), "validate")):
        if not any(map(count_documents, files)):
            names = ", ".join(path.name for path in files[:3]) + ", ..." * (len(files) > 3)
            raise ValueError(
                f"{files[0].parent} holds no document to {use}: {names} without a row; delete "
                "that, and add another (`python -m scripts.data add PATH` or `download -n 8`)"
            )
    return found


def listed(root: pathlib.Path) -> Shards:
    """The shards under a base directory: `base_data/`, else the embedded world's.

    Raises:
        FileNotFoundError: there are none.
        ValueError: there is one alone, so nothing would be left to train on.
    """
    folder = paths.data_in_use(root)
    if folder is None:
        raise FileNotFoundError(
            f"no text to train on in {paths.base_data(root)}; get some with `python -m "
            "scripts.data download -n 8`, or bring your own: `python -m scripts.data add PATH...`; "
            "`make speedrun` on a CPU brings a small world along"
        )
    files = list_shards(folder)
    if len(files) == 1:
        raise ValueError(
            f"{files[0]} is the only shard, and the last is kept for validation: add another "
            "with `python -m scripts.data add PATH` or `python -m scripts.data download -n 8`"
        )
    return Shards(tuple(files[:-1]), files[-1], folder.name)


def list_shards(folder: pathlib.Path) -> list[pathlib.Path]:
    """The parquet files of a folder by name; none if there is no folder."""
    return paths.shards(folder)


def describe(found: Shards) -> dict[str, int | str]:
    """What the report says of the data: shards, documents, bytes on disk."""
    return {
        "source": found.source,
        "training shards": len(found.train),
        "training documents": sum(map(count_documents, found.train)),
        "training bytes on disk": sum(p.stat().st_size for p in found.train),
        "validation documents": count_documents(found.val),
    }


def count_documents(path: pathlib.Path) -> int:
    """How many documents a shard says it holds; raises as `open_shard`."""
    with open_shard(path) as file:
        return file.metadata.num_rows


def group_sizes(file: pq.ParquetFile) -> list[int]:
    """How many documents each row group of a shard holds, by its own account."""
    return [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)]


def open_shard(path: pathlib.Path) -> pq.ParquetFile:
    """The open file; raises ValueError if it is gone or damaged or has no column `text`."""
    try:
        with waiting.reading(path):
            file = pq.ParquetFile(path)
    except FileNotFoundError:
        raise ValueError(f"{path} is gone; put it back, or {AGAIN}") from None
    except (pa.ArrowException, OSError) as error:
        raise ValueError(
            f"{path} is not a readable parquet file ({_line(error)}); delete it and {AGAIN}"
        ) from None
    if "text" not in file.schema_arrow.names:
        file.close()
        raise ValueError(f"{path} has columns {file.schema_arrow.names}; expected one named text")
    return file


def group_column(file: pq.ParquetFile, path: pathlib.Path, group: int) -> pa.ChunkedArray:
    """The documents of one row group as Arrow has them; raises ValueError naming it, if damaged."""
    try:
        with waiting.reading(path, f" (row group {group})"):
            return file.read_row_group(group, columns=["text"]).column("text")
    except (pa.ArrowException, OSError) as error:
        raise ValueError(
            f"{path}: row group {group} is damaged ({_line(error)}); delete the file and {AGAIN}"
        ) from None


def read_row_group(file: pq.ParquetFile, path: pathlib.Path, group: int) -> list[str]:
    """The documents of one row group; raises as `group_column`, and ValueError for a bad row."""
    column = group_column(file, path, group)
    try:
        texts = column.to_pylist()
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: row group {group} holds no UTF-8 text ({error})") from None
    # A null would reach the tokenizer hours into a run, and its message would name no file.
    for row, text in enumerate(texts):
        if not isinstance(text, str):
            raise ValueError(f"{path}: row {row} of row group {group} is {text!r}; expected text")
    return texts


def _line(error: Exception) -> str:
    """Arrow's message, which may have several lines, as one."""
    return " ".join(str(error).split())


def iter_documents(
    files: Sequence[pathlib.Path], start: int = 0, step: int = 1
) -> Iterator[list[str]]:
    """The documents of every `step`-th row group of each file, from its group `start` on."""
    for path in files:
        with open_shard(path) as file:
            for group in range(start, file.num_row_groups, step):
                yield read_row_group(file, path, group)


def shard_name(number: int) -> str:
    """The file name of a shard, as the original's: they sort by number."""
    return f"shard_{number:05d}.parquet"


def free_names(folder: pathlib.Path, below: str) -> Iterator[str]:
    """Names of new shards behind all that a folder holds by number, none of them in use.

    Not the count of shards: where one in between is gone, that is the number of another.
    """
    there = {path.name.lower() for path in folder.glob("*")} | {below}
    numbers = [int(m[1]) for name in there - {below} if (m := NUMBERED.fullmatch(name))]
    names = map(shard_name, itertools.count(1 + max(numbers, default=-1)))
    return (name for name in names if name not in there)


def cut(texts: Iterable[str], size: int) -> Iterator[list[str]]:
    """Lists of texts of about `size` characters."""
    shard: list[str] = []
    held = 0
    for text in texts:
        shard.append(text)
        held += len(text)
        if held >= size:
            yield shard
            shard, held = [], 0
    if shard:
        yield shard


def write_shard(path: pathlib.Path, texts: Sequence[str]) -> None:
    """Writes one shard as the original's are: zstd, row groups of 1024. Whole or not at all."""
    table = pa.table({"text": pa.array(texts, pa.string())})
    with whole_file(path) as file:
        pq.write_table(
            table, file, row_group_size=ROW_GROUP, compression="zstd", compression_level=3,
            # Texts hardly repeat and nobody searches in them: both would only cost space.
            use_dictionary=False, write_statistics=False,
        )  # fmt: skip
