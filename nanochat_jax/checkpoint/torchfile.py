"""torch's `.pt` files, read and written without torch.

Such a file is a zip archive whose members are stored, not compressed:

    <name>/data.pkl           a pickle of the tree; a tensor in it is a call of
                              `torch._utils._rebuild_tensor_v2(storage, offset, size, stride, ...)`
    <name>/data/<key>         the bytes of one storage, aligned to 64
    <name>/byteorder          "little"
    <name>/version            "3"

A pickle can run anything, so ours is read by an unpickler that knows the few names a state dict
uses and refuses the rest. Storages are mapped into memory: a tensor costs what is touched of it.

Source: torch/serialization.py, torch/_utils.py, torch/_weights_only_unpickler.py (formats alone).
"""

import collections
import dataclasses
import io
import math
import os
import pathlib
import pickle
import struct
import zipfile
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO

import ml_dtypes
import numpy as np

from nanochat_jax.checkpoint.pickles import UnsafeFile, check, plain

STORAGES: dict[str, np.dtype] = {
    "DoubleStorage": np.dtype(np.float64),
    "FloatStorage": np.dtype(np.float32),
    "HalfStorage": np.dtype(np.float16),
    "BFloat16Storage": np.dtype(ml_dtypes.bfloat16),
    "LongStorage": np.dtype(np.int64),
    "IntStorage": np.dtype(np.int32),
    "ShortStorage": np.dtype(np.int16),
    "CharStorage": np.dtype(np.int8),
    "ByteStorage": np.dtype(np.uint8),
    "BoolStorage": np.dtype(np.bool_),
}
NAMES = {dtype: name for name, dtype in STORAGES.items()}
DTYPES = {  # what `torch.<name>` stands for in pickles of `_rebuild_tensor_v3`
    "float64": "<f8", "float32": "<f4", "float16": "<f2", "int64": "<i8", "int32": "<i4",
    "int16": "<i2", "int8": "i1", "uint8": "u1", "bool": "?", "bfloat16": ml_dtypes.bfloat16,
    "uint16": "<u2", "uint32": "<u4", "uint64": "<u8",
    "float8_e4m3fn": ml_dtypes.float8_e4m3fn, "float8_e5m2": ml_dtypes.float8_e5m2,
}  # fmt: skip
ALIGNMENT = 64
MAX_PICKLE = 256 * 2**20  # bytes of data.pkl: a tree of names, not of numbers


@dataclasses.dataclass(frozen=True)
class _Storage:
    """One storage: its bytes in memory-mapped form, and the type its tensors have."""

    raw: np.ndarray
    dtype: np.dtype


def load(path: str | os.PathLike[str]) -> Any:
    """The tree in a file: dicts, lists, tuples, numbers, strings; tensors as numpy arrays.

    Arrays are read-only views of the mapped file; those that shared a storage still do.

    Raises:
        FileNotFoundError: no such file.
        UnsafeFile: its pickle wants to call what a state dict has no use for; nothing was run.
        ValueError: a damaged file, or one that is not torch's; the message says what was found.
    """
    path = pathlib.Path(path)
    if not path.exists():
        raise FileNotFoundError(f"no file {path}")
    try:
        with zipfile.ZipFile(path) as archive:
            return _Reader(path, archive).read()
    except zipfile.BadZipFile:
        raise ValueError(f"{path} {_what_else(path)}") from None


class _Reader:
    """Reads one open archive."""

    def __init__(self, path: pathlib.Path, archive: zipfile.ZipFile):
        self.path, self.archive = path, archive
        found = [n for n in archive.namelist() if n == "data.pkl" or n.endswith("/data.pkl")]
        if len(found) != 1:
            self.fail("holds no data.pkl: it is a zip archive, but not one of torch's")
        self.prefix = found[0].removesuffix("data.pkl")
        self.storages: dict[str, _Storage] = {}

    def read(self) -> Any:
        if self.member("byteorder", b"little") != b"little":
            self.fail("was written on a big-endian machine; save it again on a little-endian one")
        info = self.archive.getinfo(f"{self.prefix}data.pkl")
        if info.file_size > MAX_PICKLE:
            self.fail(f"has a pickle of {info.file_size:,} bytes; that is no state dict")
        try:
            pickled = self.archive.read(info)
            check(pickled)
            return _Unpickler(io.BytesIO(pickled), self.storage).load()
        except UnsafeFile as error:
            raise UnsafeFile(f"{self.path} is not safe to read: {error}") from None
        except (_Damaged, zipfile.BadZipFile, pickle.UnpicklingError, EOFError) as error:
            self.fail(f"is damaged ({error}); copy it again")
        except (ValueError, TypeError, KeyError, IndexError, AttributeError) as error:
            self.fail(f"has a pickle that makes no sense ({type(error).__name__}: {error})")
        except (MemoryError, RecursionError, OverflowError, struct.error) as error:
            self.fail(f"has a pickle that makes no sense ({type(error).__name__})")

    def member(self, name: str, default: bytes) -> bytes:
        full = f"{self.prefix}{name}"
        return self.archive.read(full).strip() if full in self.archive.NameToInfo else default

    def storage(self, pid: Any) -> _Storage:
        """The storage that a persistent id names: ("storage", class, key, location, count)."""
        if not (isinstance(pid, tuple) and len(pid) >= 5 and pid[0] == "storage"):
            raise _Damaged("a storage without a name")
        _, kind, key, _, count = pid[:5]
        if not isinstance(kind, _StorageType) or not isinstance(key, str):
            raise _Damaged("a storage without a name")
        if key not in self.storages:
            raw = self.bytes_of(key)
            self.storages[key] = _Storage(raw, kind.dtype)
        held = self.storages[key]
        if isinstance(count, int) and count * kind.dtype.itemsize > held.raw.size:
            raise _Damaged(f"storage {key} has {held.raw.size} bytes, {count} elements expected")
        return _Storage(held.raw, kind.dtype)

    def bytes_of(self, key: str) -> np.ndarray:
        """The bytes of one storage: mapped where they are stored, read where compressed."""
        name = f"{self.prefix}data/{key}"
        info = self.archive.NameToInfo.get(name)
        if info is None:
            raise _Damaged(f"{name} is missing")
        if info.compress_type != zipfile.ZIP_STORED:
            return np.frombuffer(self.archive.read(info), np.uint8)
        start = self.start_of(info)
        if start + info.file_size > self.path.stat().st_size:
            raise _Damaged(f"{name} ends beyond the file")
        if info.file_size == 0:
            return np.empty(0, np.uint8)
        return np.memmap(self.path, np.uint8, "r", start, (info.file_size,)).view(np.ndarray)

    def start_of(self, info: zipfile.ZipInfo) -> int:
        """Where a member's bytes begin: its local header names the length of what precedes them."""
        with open(self.path, "rb") as file:
            file.seek(info.header_offset)
            header = file.read(30)
        if len(header) < 30 or header[:4] != b"PK\x03\x04":
            raise _Damaged(f"no member at byte {info.header_offset}")
        name, extra = struct.unpack("<HH", header[26:30])
        return info.header_offset + 30 + name + extra

    def fail(self, what: str) -> Any:
        raise ValueError(f"{self.path} {what}") from None


class _Damaged(Exception):
    """What a truncated or altered file shows itself by."""


@dataclasses.dataclass(frozen=True)
class _StorageType:
    dtype: np.dtype


class _Dtype(str):
    """`torch.float32` and its like."""


class _Unpickler(pickle.Unpickler):
    """Builds trees of plain values and arrays; every name it does not know is refused."""

    def __init__(self, stream: BinaryIO, storage: Callable[[Any], _Storage]):
        super().__init__(stream)
        self.persistent_load = storage

    def find_class(self, module: str, name: str) -> Any:
        if module in ("torch", "torch.storage") and name in STORAGES:
            return _StorageType(STORAGES[name])
        if module in ("torch", "torch.storage") and name == "UntypedStorage":
            return _StorageType(np.dtype(np.uint8))
        if module == "torch" and name in DTYPES:
            return _Dtype(name)
        if module == "torch" and name == "Size":
            return _size
        known = {
            ("torch._utils", "_rebuild_tensor_v2"): _tensor,
            ("torch._utils", "_rebuild_tensor"): _tensor,
            ("torch._utils", "_rebuild_tensor_v3"): _tensor_v3,
            ("torch._utils", "_rebuild_parameter"): _parameter,
            ("collections", "OrderedDict"): _OrderedDict,
            ("collections", "defaultdict"): _default_dict,
        }
        if (module, name) in known:
            return known[module, name]
        raise UnsafeFile(f"its pickle asks for {module}.{name}, which no state dict uses")


class _OrderedDict(collections.OrderedDict):
    """Takes and drops the attributes (`_metadata`) that a module's state dict carries."""

    def __setstate__(self, state: Any) -> None:
        pass


def _default_dict(*_: Any) -> dict:
    return {}


def _size(values: Any = ()) -> tuple:
    return tuple(values)


def _parameter(array: np.ndarray, *_: Any) -> np.ndarray:
    return array


def _tensor(storage: _Storage, offset: int, size: Any, stride: Any, *_: Any) -> np.ndarray:
    return _view(storage, storage.dtype, offset, size, stride)


def _tensor_v3(
    storage: _Storage, offset: int, size: Any, stride: Any, grad: Any, hooks: Any, dtype: _Dtype,
    *_: Any,
) -> np.ndarray:  # fmt: skip
    return _view(storage, np.dtype(DTYPES[str(dtype)]), offset, size, stride)


def _view(storage: _Storage, dtype: np.dtype, offset: int, size: Any, stride: Any) -> np.ndarray:
    """The array over a storage; nothing outside it can be reached."""
    size, stride = tuple(size), tuple(stride)
    numbers = (offset, *size, *stride)
    if len(size) != len(stride) or not all(isinstance(n, int) and n >= 0 for n in numbers):
        raise _Damaged("a tensor whose size and stride are not whole numbers of one count")
    count = storage.raw.size // dtype.itemsize
    last = offset + sum((n - 1) * s for n, s in zip(size, stride, strict=True))
    if math.prod(size) == 0:
        return np.empty(size, dtype)
    if last >= count:
        raise _Damaged(f"a tensor of size {size} reaches element {last} of {count}")
    flat = storage.raw[: count * dtype.itemsize].view(dtype)
    steps = [s * dtype.itemsize for s in stride]
    return np.lib.stride_tricks.as_strided(flat[offset:], size, steps, writeable=False)


def _what_else(path: pathlib.Path) -> str:
    """What a file is that is not a zip archive."""
    with open(path, "rb") as file:
        head = file.read(4)
    if not head:
        return "is empty; copy it again"
    if head[:2] == b"PK":
        return "is a zip archive that breaks off; copy it again"
    if head[:1] == b"\x80" or b"ustar" in head:
        return (
            "is in torch's format of before 1.6, or a bare pickle; with torch at hand, load it and "
            "torch.save it again"
        )
    return "is not a file of torch"


def save(path: str | os.PathLike[str], tree: Any) -> None:
    """Writes a tree that `torch.load(path, weights_only=True)` reads, mapped or not.

    Dicts, lists, tuples, numbers, strings, None, and numpy arrays as tensors; the same array twice
    shares a storage. Written beside and renamed; memory holds one array at a time.

    Raises:
        TypeError: a value of another type, or an array of a type that torch has not.
        OSError: the disk is full; nothing is left.
    """
    path = pathlib.Path(path)
    pickled, arrays = _pickled(tree)
    part = path.with_name(f".{path.name}.part")
    try:
        with open(part, "wb") as file:
            with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
                _add(archive, file, "data.pkl", pickled)
                _add(archive, file, "byteorder", b"little")
                for key, array in enumerate(arrays):
                    _add(archive, file, f"data/{key}", array)
                _add(archive, file, "version", b"3\n")
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def _add(archive: zipfile.ZipFile, file: BinaryIO, name: str, content: Any) -> None:
    """One stored member whose bytes begin at a multiple of 64: the extra field pads."""
    info = zipfile.ZipInfo(f"archive/{name}")
    start = file.tell() + 30 + len(info.filename) + 4
    size = content.nbytes if isinstance(content, np.ndarray) else len(content)
    start += 20 * (size >= zipfile.ZIP64_LIMIT)  # what zipfile itself adds then
    padding = -start % ALIGNMENT
    info.extra = struct.pack("<HH", 0x4246, padding) + b"Z" * padding
    info.file_size = size
    with archive.open(info, "w", force_zip64=size >= zipfile.ZIP64_LIMIT) as member:
        if isinstance(content, np.ndarray):
            member.write(memoryview(_contiguous(content)).cast("B") if size else b"")
        else:
            member.write(content)


def _contiguous(array: np.ndarray) -> np.ndarray:
    """The array's bytes in C order, as uint8."""
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8)


def _pickled(tree: Any) -> tuple[bytes, list[np.ndarray]]:
    """The pickle (protocol 2) of a tree, and its arrays in the order of their storage keys."""
    out, arrays, keys = io.BytesIO(), [], {}
    out.write(b"\x80\x02")
    for piece in _ops(tree, arrays, keys):
        out.write(piece)
    out.write(b".")
    return out.getvalue(), arrays


def _ops(value: Any, arrays: list[np.ndarray], keys: dict[int, int]) -> Iterator[bytes]:
    """The opcodes that leave `value` on the unpickler's stack."""
    if isinstance(value, dict):
        yield b"}("
        for key, item in value.items():
            yield from _ops(key, arrays, keys)
            yield from _ops(item, arrays, keys)
        yield b"u"
    elif isinstance(value, list):
        yield b"]("
        for item in value:
            yield from _ops(item, arrays, keys)
        yield b"e"
    elif isinstance(value, tuple):
        yield b"("
        for item in value:
            yield from _ops(item, arrays, keys)
        yield b"t"
    elif isinstance(value, np.ndarray):
        yield from _tensor_ops(value, arrays, keys)
    elif value is None or isinstance(value, bool | int | float | str):
        yield plain(value)
    else:
        raise TypeError(f"cannot save a {type(value).__name__}; arrays must be numpy's")


def _tensor_ops(
    array: np.ndarray, arrays: list[np.ndarray], keys: dict[int, int]
) -> Iterator[bytes]:
    """`_rebuild_tensor_v2(storage, 0, size, stride, False, OrderedDict())`."""
    if array.dtype not in NAMES:
        raise TypeError(f"torch has no tensor of type {array.dtype}")
    if id(array) not in keys:
        keys[id(array)] = len(arrays)
        arrays.append(array)
    yield b"ctorch._utils\n_rebuild_tensor_v2\n("
    yield b"("
    yield plain("storage")
    yield f"ctorch\n{NAMES[array.dtype]}\n".encode()
    yield from (plain(str(keys[id(array)])), plain("cpu"), plain(array.size))
    yield b"tQ"
    yield plain(0)
    strides = [math.prod(array.shape[i + 1 :]) for i in range(array.ndim)]
    for numbers in (array.shape, strides):
        yield b"(" + b"".join(plain(int(n)) for n in numbers) + b"t"
    yield plain(False) + b"ccollections\nOrderedDict\n)RtR"
