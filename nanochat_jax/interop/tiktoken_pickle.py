"""nanochat's `tokenizer.pkl`, a pickled `tiktoken.Encoding`: its fields, read and written.

tiktoken is not needed and none of its objects is built. Such a pickle names the class, makes an
empty object of it, and hands that a dict of the four fields; here the name stands for a holder.

Source: tiktoken/core.py (`Encoding.__getstate__`), for the format alone.
"""

import dataclasses
import os
import pathlib
from collections.abc import Mapping
from typing import Any

from nanochat_jax.interop import pickles
from nanochat_jax.interop.pickles import Held, UnsafeFile, plain


@dataclasses.dataclass(frozen=True)
class EncodingFields:
    """What an Encoding is made of: token bytes -> rank, and special token -> id."""

    name: str
    pat_str: str
    mergeable_ranks: Mapping[bytes, int]
    special_tokens: Mapping[str, int]


def load(path: str | os.PathLike[str]) -> EncodingFields:
    """The fields in a file.

    Raises:
        FileNotFoundError: no such file.
        UnsafeFile: the pickle asks for anything but an Encoding; nothing was run.
        ValueError: a damaged file, or an Encoding without its fields.
    """
    path = pathlib.Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no file {path}")
    try:
        return _fields(pickles.read(path.read_bytes(), NAMES, leaves=(Held,)))
    except UnsafeFile as error:
        raise UnsafeFile(f"{path} is refused: {error}; nothing of it was run") from None
    except ValueError as error:
        raise ValueError(
            f"{path} is no pickled tiktoken Encoding: {error}; copy nanochat's tokenizer.pkl again"
        ) from None


def save(path: str | os.PathLike[str], fields: EncodingFields) -> None:
    """Writes a pickle (protocol 3) that becomes an Encoding where tiktoken is installed.

    Raises:
        ValueError: fields of other types, which no Encoding could be made of.
        OSError: the disk is full, say; nothing is left.
    """
    path = pathlib.Path(path)
    state = {f.name: getattr(fields, f.name) for f in dataclasses.fields(EncodingFields)}
    state = {k: dict(v) if isinstance(v, Mapping) else v for k, v in state.items()}
    _fields(Held(state))
    part = path.with_name(f".{path.name}.part")
    try:
        with part.open("wb") as file:
            file.write(b"\x80\x03ctiktoken.core\nEncoding\n)\x81" + _dict(state) + b"b.")
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    except OSError as error:
        raise OSError(error.errno, f"not written: {error.strerror}", str(path)) from error
    finally:
        part.unlink(missing_ok=True)


def _latin1(text: Any, encoding: Any) -> bytes:
    """Bytes as protocol 2 has them: a string, one character a byte."""
    if type(text) is not str or encoding != "latin1":
        raise ValueError(f"it encodes a {type(text).__name__}")
    return text.encode("latin-1")


NAMES = {"tiktoken.core.Encoding": lambda: Held(), "_codecs.encode": _latin1}


def _fields(held: Any) -> EncodingFields:
    """The fields of what was read, each checked for its type."""
    if not isinstance(held, Held):
        raise ValueError(f"it holds a {type(held).__name__}")
    state = held.state
    if type(state) is str:
        raise ValueError(f"it only names the encoding {state!r}, whose tokens tiktoken downloads")
    if type(state) is not dict:
        raise ValueError(f"its fields are a {type(state).__name__}, expected a dict")
    for name in ("name", "pat_str"):
        if type(state.get(name)) is not str:
            raise ValueError(f"its {name} is a {type(state.get(name)).__name__}, expected a str")
    for name, kind in (("mergeable_ranks", bytes), ("special_tokens", str)):
        table = state.get(name)
        if type(table) is not dict:
            raise ValueError(f"its {name} is a {type(table).__name__}, expected a dict")
        if any(type(k) is not kind or type(v) is not int or v < 0 for k, v in table.items()):
            raise ValueError(f"its {name} holds other than {kind.__name__} -> a number from 0")
    return EncodingFields(*(state[f.name] for f in dataclasses.fields(EncodingFields)))


def _dict(values: Mapping[Any, Any]) -> bytes:
    """The opcodes of a dict of plain values and dicts."""
    item = lambda value: _dict(value) if isinstance(value, dict) else plain(value)
    return b"}(" + b"".join(plain(k) + item(v) for k, v in values.items()) + b"u"
