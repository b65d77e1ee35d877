"""Files of one JSON value a line, `.gz` too, read with the place of whatever is wrong."""

import gzip
import json
import pathlib
import zlib
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

Value = TypeVar("Value")


def open_text(path: pathlib.Path) -> Any:
    """The file opened for reading as UTF-8 text, unpacked if its name ends in `.gz`."""
    return (gzip.open if path.suffix == ".gz" else open)(path, "rt", encoding="utf-8")


def read_values(path: pathlib.Path, parse: Callable[[Any], Value]) -> Iterator[Value]:
    """`parse` of the value of each line; blank lines are passed over.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: naming file, line and what is wrong with it.
    """
    if not path.exists():
        raise FileNotFoundError(f"no file {path}")
    number = 0
    with open_text(path) as lines:
        try:
            for line in lines:
                number += 1
                if line.strip():
                    yield parse(json.loads(line))
        except json.JSONDecodeError as error:
            raise ValueError(f"{path}, line {number}: not valid JSON ({error})") from None
        except ValueError as error:
            raise ValueError(f"{path}, line {number}: {error}") from None
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise ValueError(f"{path} is damaged after line {number}: {error}") from None
