"""torch's `.pt` files, read and written without torch.

A zip archive of stored members: `<any>/data.pkl`, a pickle of the tree in which each tensor is a
call of `torch._utils._rebuild_tensor_v2(storage, offset, size, stride, ...)` and its storage a
persistent id ("storage", class, key, place, count); `<any>/data/<key>`, the bytes of one storage,
from a multiple of 64 on, mapped into memory; `<any>/byteorder`, `<any>/version`.

Source: torch/serialization.py and torch/_utils.py, for the format alone.
"""

import dataclasses
import itertools
import math
import mmap
import pathlib
import struct
import weakref
import zipfile
import zlib
from collections.abc import Iterator
from typing import Any, BinaryIO

import ml_dtypes
import numpy as np

from nanochat_jax.checkpoint.mapped import drop_pages
from nanochat_jax.files import whole_file
from nanochat_jax.interop import pickles, stored_zip
from nanochat_jax.interop.pickles import UnsafeFile, plain

# The class of a storage says the type of its numbers; tensors of later types lie in untyped
# storages, and their rebuild call (`_rebuild_tensor_v3`) says it.
KINDS = dict(
    Double="<f8", Float="<f4", Half="<f2", BFloat16=ml_dtypes.bfloat16,
    Long="<i8", Int="<i4", Short="<i2", Char="i1", Byte="u1", Bool="?",
)  # fmt: skip
STORAGES = {f"{name}Storage": np.dtype(kind) for name, kind in KINDS.items()}
CLASSES = {dtype: name for name, dtype in STORAGES.items()}
LATER = map(np.dtype, ("uint16", "uint32", "uint64", "float8_e4m3fn", "float8_e5m2"))
DTYPES = {dtype.name: dtype for dtype in (*STORAGES.values(), *LATER)}
Arrays = dict[int, tuple[int, np.ndarray]]  # its id -> its place in the file, and the array
# Bytes of all compressed members: a few kilobytes of zip can inflate to terabytes.
MAX_INFLATED = 2**30


def load(path: pathlib.Path) -> Any:
    """The tree in a file: dicts, lists, tuples, plain values; tensors as numpy arrays.

    Arrays are read-only views of the mapped file, valid while it is not overwritten; those that
    shared a storage still do. When the last array of a storage is dropped its memory is given
    back, so a tree that is converted entry by entry never lies in memory as a whole. A dtype comes
    back as numpy's, a size as a tuple.

    Raises:
        FileNotFoundError: no such file.
        UnsafeFile: its pickle asks for what a state dict has no use for; nothing was run.
        ValueError: a damaged file, or one that is not torch's; the message says what was found.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no file {path}")
    try:
        with open(path, "rb") as file:
            return _Reader(file).read()
    except UnsafeFile as error:
        raise UnsafeFile(
            f"{path} is refused: {error}; nothing of it was run. If you trust it, load it with "
            "torch and torch.save its tensors alone"
        ) from None
    except zipfile.BadZipFile as error:
        raise ValueError(f"{path} {_what_else(path, error)}") from None
    except (ValueError, OverflowError, struct.error, zlib.error) as error:
        raise ValueError(
            f"{path} is no whole file of torch.save: {error}; copy it again, or torch.save it again"
        ) from None


@dataclasses.dataclass(frozen=True)
class _Storage:
    """The type of the tensors over a storage, and its bytes, uint8 [n]; its class has no bytes."""

    dtype: np.dtype
    raw: np.ndarray | None = None


def _opened(file: BinaryIO) -> zipfile.ZipFile:
    """The archive; ValueError for one that asks for a later zip than `zipfile` knows."""
    try:
        return zipfile.ZipFile(file)
    except NotImplementedError as error:  # zipfile's word for a later zip
        raise ValueError(str(error)) from None


class _Reader:
    """Reads one open archive."""

    def __init__(self, file: BinaryIO):
        self.archive = _opened(file)
        self.map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        self.storages: dict[str, np.ndarray] = {}
        self.inflated = 0
        found = [n for n in self.archive.namelist() if f"/{n}".endswith("/data.pkl")]
        if len(found) != 1:
            raise ValueError(f"a zip archive with {len(found)} members data.pkl, expected one")
        self.prefix = found[0].removesuffix("data.pkl")

    def read(self) -> Any:
        if f"{self.prefix}byteorder" in self.archive.NameToInfo:
            if (order := self.member("byteorder").tobytes()) != b"little":
                raise ValueError(f"its byte order is {order!r}, expected b'little'")
        pickled, leaves = self.member("data.pkl").tobytes(), (np.ndarray, np.dtype)
        return pickles.read(pickled, NAMES, leaves=leaves, persistent=self.storage)

    def storage(self, name: Any) -> _Storage:
        """The storage that a persistent id names."""
        kinds = (str, _Storage, str, str, int)
        if type(name) is not tuple or tuple(map(type, name)) != kinds or name[0] != "storage":
            raise ValueError("a persistent id that names no storage")
        _, kind, key, _, count = name
        if key not in self.storages:
            self.storages[key] = self.member(f"data/{key}")
        raw, expected = self.storages[key], count * kind.dtype.itemsize
        if raw.size != expected:
            raise ValueError(f"storage {key} has {raw.size} bytes, expected {expected}")
        return _Storage(kind.dtype, raw)

    def member(self, name: str) -> np.ndarray:
        """The bytes of a member, uint8 [n]: mapped, or in memory where it is compressed."""
        info = self.archive.NameToInfo.get(f"{self.prefix}{name}")
        if info is None:
            raise ValueError(f"member {self.prefix}{name} is missing")
        start = self.start(info)
        raw = np.frombuffer(self.map, np.uint8, info.compress_size, start)
        # Arrays over these bytes hold `raw` as their base: it dies with the last of them.
        weakref.finalize(raw, drop_pages, self.map, start, raw.size).atexit = False
        if info.compress_type != zipfile.ZIP_STORED:
            raw = self.inflate(raw, info)
        # torch writes 0 where `set_crc32_options(False)` turned checksums off.
        if info.CRC and zlib.crc32(raw) != info.CRC:
            raise ValueError(f"member {info.filename} differs from its checksum")
        drop_pages(self.map, start, info.compress_size)  # the checksum has touched all of it
        return raw

    def start(self, info: zipfile.ZipInfo) -> int:
        """Where a member's bytes begin: after a header of its own, which has padding in it.

        `zipfile` opens members as streams alone, and a stream cannot be mapped.
        """
        at = info.header_offset
        header = self.map[at : at + 30] if at >= 0 else b""
        if len(header) < 30 or header[:4] != b"PK\x03\x04" or info.flag_bits & 1:
            raise ValueError(f"no readable member {info.filename} at byte {at}")
        start = at + 30 + sum(struct.unpack("<HH", header[26:]))
        if start + info.compress_size > len(self.map):
            raise ValueError(f"member {info.filename} ends beyond the file")
        return start

    def inflate(self, raw: np.ndarray, info: zipfile.ZipInfo) -> np.ndarray:
        """What a deflated member holds; no more memory is claimed than its size says.

        torch compresses nothing, but a file that went through a zip tool may be compressed.
        """
        self.inflated += info.file_size
        if info.compress_type != zipfile.ZIP_DEFLATED or self.inflated > MAX_INFLATED:
            raise ValueError(f"member {info.filename} is compressed; unzip all, then zip -0 -r")
        whole = zlib.decompressobj(-15).decompress(raw, max(1, info.file_size))
        return np.frombuffer(whole, np.uint8)


def _tensor(
    storage: Any, offset: Any, size: Any, stride: Any, _grad: Any = None, _hooks: Any = None,
    metadata: Any = None,
) -> np.ndarray:  # fmt: skip
    """An array over a storage; offset and strides are in elements, none may lead outside."""
    if type(storage) is not _Storage or storage.raw is None:
        raise ValueError("a tensor without a storage")
    if not isinstance(storage.dtype, np.dtype):
        raise ValueError("a tensor without a type")
    if metadata:
        raise ValueError("a tensor conjugated or negated in name only")
    raw, dtype = storage.raw, storage.dtype
    numbers = (offset, *size, *stride)
    if len(size) != len(stride) or any(type(n) is not int or n < 0 for n in numbers):
        raise ValueError(f"a tensor of offset {offset}, size {size}, stride {stride}")
    if 0 in size:
        return np.empty(size, dtype)
    last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
    if last >= raw.size // dtype.itemsize:
        raise ValueError(
            f"a tensor of size {size}, stride {stride} reaches element {last} of a storage of "
            f"{raw.size // dtype.itemsize}"
        )
    steps = [step * dtype.itemsize for step in stride]
    return np.ndarray(size, dtype, raw, offset * dtype.itemsize, steps)


def _tensor_v3(storage: Any, offset: Any, size: Any, stride: Any, grad: Any, hooks: Any, dtype: Any,
               metadata: Any = None) -> np.ndarray:  # fmt: skip
    typed = dataclasses.replace(storage, dtype=dtype)
    return _tensor(typed, offset, size, stride, grad, hooks, metadata)


NAMES: dict[str, Any] = {
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_tensor_v3": _tensor_v3,
    "torch._utils._rebuild_parameter": lambda array, *_: array,
    "torch._utils._rebuild_parameter_with_state": lambda array, *_: array,
    "torch.Size": lambda values: tuple(values),
    # Bytes whose type the call of `_rebuild_tensor_v3` gives.
    "torch.storage.UntypedStorage": _Storage(np.dtype("u1")),
    "collections.OrderedDict": lambda: {},  # dicts keep their order themselves
    **{f"torch.{name}": _Storage(dtype) for name, dtype in STORAGES.items()},
    **{f"torch.{name}": dtype for name, dtype in DTYPES.items()},
}


def _what_else(path: pathlib.Path, error: Exception) -> str:
    """What a file is that is not a whole zip archive, and what to do."""
    with open(path, "rb") as file:
        head = file.read(512)
    if not head:
        return "is empty; copy it again"
    if head.startswith(b"PK"):
        return f"is a zip archive that breaks off ({error}); copy it again"
    if head.startswith(b"\x80") or head[257:262] == b"ustar":
        return "is in torch's format of before 1.6, or a bare pickle; torch.load it, torch.save it"
    if head.startswith(b"version https://git-lfs"):
        return "is a Git LFS pointer, not the file itself; fetch it with: git lfs pull"
    return f"is not a file of torch.save; it begins with {head[:8]!r}"


def save(path: pathlib.Path, tree: Any) -> None:
    """Writes a tree that `torch.load(path, weights_only=True)` reads, mapped or not.

    Dicts, lists, tuples, plain values, and numpy arrays as tensors; the same array twice shares a
    storage, as tied weights do. Beyond the tree, memory holds at most one array.

    Raises:
        TypeError: a value of another type, or an array of a type that torch has not.
        OSError: the disk is full, say; nothing is left.
    """
    arrays: Arrays = {}
    pickled = b"\x80\x02" + _ops(tree, arrays) + b"."
    with whole_file(path) as file:
        stored_zip.write(file, _members(pickled, arrays))


def _members(pickled: bytes, arrays: Arrays) -> Iterator[tuple[str, bytes | memoryview]]:
    """The members of an archive, each made when its turn comes."""
    yield "archive/data.pkl", pickled
    yield "archive/byteorder", b"little"
    for key, array in arrays.values():
        flat = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
        yield f"archive/data/{key}", memoryview(flat)
    yield "archive/version", b"3\n"


def _ops(value: Any, arrays: Arrays) -> bytes:
    """The opcodes that leave a tree on the stack; its arrays are added to `arrays`, once each."""
    inside = lambda values: b"".join(_ops(v, arrays) for v in values)
    if isinstance(value, dict):
        return b"}(" + inside(itertools.chain(*value.items())) + b"u"
    if isinstance(value, list):
        return b"](" + inside(value) + b"e"
    if isinstance(value, tuple):
        return b"(" + inside(value) + b"t"
    if isinstance(value, np.ndarray):
        return _tensor_ops(value, arrays)
    if isinstance(value, np.dtype) and value.name in DTYPES:
        return _name("torch", value.name)
    if value is None:
        return plain(None)
    for kind in (bool, int, float, str):  # a subclass, such as np.float64, would be pickled as one
        if isinstance(value, kind):
            return plain(kind(value))
    raise TypeError(f"cannot save a {type(value).__name__}; give arrays as np.asarray(array)")


def _tensor_ops(array: np.ndarray, arrays: Arrays) -> bytes:
    """A call of `_rebuild_tensor_v2`, or v3 with the type where no storage class has it."""
    dtype = array.dtype
    if DTYPES.get(dtype.name) != dtype:
        raise TypeError(f"torch has no tensor of type {dtype}; convert it with array.astype")
    key, typed = arrays.setdefault(id(array), (len(arrays), array))[0], dtype in CLASSES
    kind = _name("torch", CLASSES[dtype]) if typed else _name("torch.storage", "UntypedStorage")
    count = array.size if typed else array.nbytes
    storage = _tuple(plain("storage"), kind, plain(str(key)), plain("cpu"), plain(count)) + b"Q"
    stride = [math.prod(array.shape[axis + 1 :]) for axis in range(array.ndim)]
    hooks = _name("collections", "OrderedDict") + b")R"
    numbers = (plain(0), plain(array.shape), plain(tuple(stride)), plain(False))
    later = () if typed else (_name("torch", dtype.name),)
    rebuild = _name("torch._utils", f"_rebuild_tensor_v{2 if typed else 3}")
    return rebuild + _tuple(storage, *numbers, hooks, *later) + b"R"


def _name(module: str, name: str) -> bytes:
    return f"c{module}\n{name}\n".encode()


def _tuple(*items: bytes) -> bytes:
    return b"(" + b"".join(items) + b"t"
