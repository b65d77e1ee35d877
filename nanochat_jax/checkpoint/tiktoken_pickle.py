"""nanochat's `tokenizer.pkl`, a pickled `tiktoken.Encoding`: its fields, read and written.

tiktoken is not needed and none of its objects is built: of everything that a pickle can ask for,
only the class's name is known here, and it stands for a holder of the four fields.
"""

import dataclasses
import io
import os
import pathlib
import pickle
from collections.abc import Mapping
from typing import Any

from nanochat_jax.checkpoint.pickles import UnsafeFile, check, plain


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
    pickled = path.read_bytes()
    try:
        check(pickled)
        held = _Unpickler(io.BytesIO(pickled)).load()
        return _fields(held)
    except UnsafeFile as error:
        raise UnsafeFile(f"{path} is not safe to read: {error}") from None
    except Exception as error:
        raise ValueError(
            f"{path} is not a pickled tiktoken Encoding ({type(error).__name__}: {error}); "
            "copy nanochat's tokenizer.pkl again"
        ) from None


def save(path: str | os.PathLike[str], fields: EncodingFields) -> None:
    """Writes a pickle (protocol 3) that becomes an Encoding where tiktoken is installed."""
    path = pathlib.Path(path)
    part = path.with_name(f".{path.name}.part")
    try:
        with part.open("wb") as file:
            file.write(b"\x80\x03ctiktoken.core\nEncoding\n)\x81")
            file.write(_mapping({f.name: getattr(fields, f.name) for f in _FIELDS}))
            file.write(b"b.")
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


_FIELDS = dataclasses.fields(EncodingFields)


class _Held:
    """Takes the state that an Encoding was saved with."""

    def __setstate__(self, state: Any) -> None:
        self.state = state


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in (("tiktoken.core", "Encoding"), ("tiktoken", "Encoding")):
            return _Held
        raise UnsafeFile(f"its pickle asks for {module}.{name}, expected a tiktoken Encoding alone")

    def persistent_load(self, _: Any) -> Any:
        raise UnsafeFile("its pickle refers to things outside itself")


def _fields(held: Any) -> EncodingFields:
    """The fields of what was read, each checked for its type."""
    state = getattr(held, "state", None) if isinstance(held, _Held) else None
    if not isinstance(state, dict):
        raise ValueError(f"it holds a {type(held).__name__} without fields")
    kinds = dict(name=(str,), pat_str=(str,), mergeable_ranks=(bytes, int),
                 special_tokens=(str, int))  # fmt: skip
    for name, kind in kinds.items():
        value = state.get(name)
        pairs = value.items() if isinstance(value, dict) and len(kind) == 2 else None
        if pairs is None and not (len(kind) == 1 and isinstance(value, kind[0])):
            raise ValueError(f"its field {name} is a {type(value).__name__}")
        if any(type(k) is not kind[0] or type(v) is not int for k, v in pairs or ()):
            raise ValueError(f"its field {name} holds other than {kind[0].__name__} to int")
    return EncodingFields(**{name: state[name] for name in kinds})


def _mapping(values: Mapping[Any, Any]) -> bytes:
    """The opcodes of a dict of plain values and dicts."""
    item = lambda v: _mapping(v) if isinstance(v, Mapping) else plain(v)
    return b"}(" + b"".join(plain(k) + item(v) for k, v in values.items()) + b"u"
