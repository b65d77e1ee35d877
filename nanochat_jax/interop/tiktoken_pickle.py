"""nanochat's `tokenizer.pkl`, a pickled `tiktoken.Encoding`: its fields, read and written.

tiktoken is not needed and none of its objects is built. Such a pickle names the class, makes an
empty object of it, and hands that a dict of the four fields; here a placeholder takes them.

Source: tiktoken/core.py (`Encoding.__getstate__`), for the format alone.
"""

import dataclasses
import pathlib
from collections.abc import Mapping
from typing import Any

from nanochat_jax.files import whole_file
from nanochat_jax.interop import pickles
from nanochat_jax.interop.pickles import Placeholder, UnsafeFile


@dataclasses.dataclass(frozen=True)
class EncodingFields:
    """What an Encoding is made of: token bytes -> rank, and special token -> id."""

    name: str
    pat_str: str
    mergeable_ranks: Mapping[bytes, int]
    special_tokens: Mapping[str, int]


def load(path: pathlib.Path) -> EncodingFields:
    """The fields in a file.

    Raises:
        FileNotFoundError: no such file.
        UnsafeFile: the pickle asks for anything but an Encoding; nothing was run.
        ValueError: a damaged file, or an Encoding without its fields.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no file {path}")
    try:
        return _fields(pickles.read(path.read_bytes(), NAMES, leaves=(Placeholder,)))
    except UnsafeFile as error:
        raise UnsafeFile(f"{path} is refused: {error}; nothing of it was run") from None
    except ValueError as error:
        raise ValueError(
            f"{path} is no pickled tiktoken Encoding: {error}; copy nanochat's tokenizer.pkl again"
        ) from None


def save(path: pathlib.Path, fields: EncodingFields) -> None:
    """Writes a pickle (protocol 3) that becomes an Encoding where tiktoken is installed.

    Raises:
        ValueError: fields of other types, which no Encoding could be made of.
        OSError: the disk is full, say; nothing is left.
    """
    state = {k: dict(v) if isinstance(v, Mapping) else v for k, v in vars(fields).items()}
    _fields(Placeholder(state))
    with whole_file(path) as file:
        # An empty object of the class (NEWOBJ), and its state handed to it (BUILD).
        file.write(b"\x80\x03ctiktoken.core\nEncoding\n)\x81" + pickles.plain(state) + b"b.")


def _latin1(text: Any, encoding: Any) -> bytes:
    """Bytes as protocol 2 has them, which knows no bytes: a string, one character a byte."""
    if type(text) is not str or encoding != "latin1":
        raise ValueError(f"it encodes a {type(text).__name__}")
    return text.encode("latin-1")


NAMES = {"tiktoken.core.Encoding": lambda: Placeholder(), "_codecs.encode": _latin1}


def _fields(value: Any) -> EncodingFields:
    """The fields of what was read, each checked for its type."""
    if not isinstance(value, Placeholder):
        raise ValueError(f"it holds a {type(value).__name__}")
    state = value.state
    if type(state) is str:
        raise ValueError(f"it only names the encoding {state!r}, whose tokens tiktoken downloads")
    if type(state) is not dict:
        raise ValueError(f"its fields are a {type(state).__name__}, expected a dict")
    kinds = dict(name=str, pat_str=str, mergeable_ranks=dict, special_tokens=dict)
    for name, kind in kinds.items():
        if type(found := state.get(name)) is not kind:
            got = type(found).__name__
            raise ValueError(f"its {name} is a {got}, expected a {kind.__name__}")
    for name, kind in (("mergeable_ranks", bytes), ("special_tokens", str)):
        entries = state[name].items()
        if any(type(k) is not kind or type(v) is not int or v < 0 for k, v in entries):
            raise ValueError(f"its {name} holds other than {kind.__name__} -> a number from 0")
    return EncodingFields(**{name: state[name] for name in kinds})
