"""Files of one JSON value a line, `.gz` too, read with the place of whatever is wrong."""

import json
import pathlib
import re
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from nanochat_jax.texts import read_lines

Value = TypeVar("Value")

HALF = re.compile("[\ud800-\udfff]")  # of a character: JSON can hold one, no file of UTF-8 can
ESCAPED = re.compile(r"\\u[dD][89a-fA-F]")


def loads(text: str) -> Any:
    """The value of a JSON text; half a character becomes U+FFFD, as it does in the tokenizer.

    Raises ValueError with what is wrong.
    """
    try:
        value = json.loads(text)
        return _whole(value) if ESCAPED.search(text) else value
    except json.JSONDecodeError as error:
        raise ValueError(f"not valid JSON ({error})") from None
    except RecursionError:
        raise ValueError("nested too deeply to be read") from None
    except ValueError:  # Python reads no longer ones: that takes quadratic time
        raise ValueError("a number of more than 4,300 digits") from None


def _whole(value: Any) -> Any:
    if isinstance(value, str):
        return HALF.sub("\ufffd", value)
    if isinstance(value, dict):
        return {_whole(key): _whole(inner) for key, inner in value.items()}
    return [_whole(inner) for inner in value] if isinstance(value, list) else value


def read_values(path: pathlib.Path, parse: Callable[[Any], Value]) -> Iterator[Value]:
    """`parse` of the value of each line; blank lines are passed over.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: naming file, line and what is wrong with it.
    """
    if not path.exists():
        raise FileNotFoundError(f"no file {path}")
    for number, line in enumerate(read_lines(path), 1):
        if line.strip():
            try:
                value = parse(loads(line))
            except ValueError as error:
                raise ValueError(f"{path}, line {number}: {error}") from None
            yield value
