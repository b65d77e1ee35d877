"""Trees of every kind, and files of torch's layout made opcode by opcode, as an attacker would."""

import math
import struct
import zipfile

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from nanochat_jax.interop import torchfile
from nanochat_jax.interop.pickles import plain
from nanochat_jax.interop.torchfile import DTYPES


def call(name: str, *arguments: bytes) -> bytes:
    module, _, name = name.rpartition(".")
    return f"c{module}\n{name}\n".encode() + b"(" + b"".join(arguments) + b"tR"


def numbers(*values: int) -> bytes:
    return b"(" + b"".join(map(plain, values)) + b"t"


def storage(count: int, key: str = "0", kind: str = "FloatStorage") -> bytes:
    head = b"(" + plain("storage") + f"ctorch\n{kind}\n".encode()
    return head + plain(key) + plain("cuda:0") + plain(count) + b"tQ"


def tensor(held: bytes, offset: int, size: tuple, stride: tuple, *more: bytes) -> bytes:
    hooks = call("collections.OrderedDict")
    parts = (held, plain(offset), numbers(*size), numbers(*stride), plain(False), hooks, *more)
    return call("torch._utils._rebuild_tensor_v2", *parts)


def write(path, pickled: bytes, *storages: bytes, order=b"little", skip=(), **zipped):
    """A file of torch's layout around any pickle; `zipped` goes to the zip writer."""
    with zipfile.ZipFile(path, "w", **zipped) as archive:
        members = {"data.pkl": pickled, "byteorder": order, "version": b"3\n"}
        members |= {f"data/{key}": content for key, content in enumerate(storages)}
        for name, content in members.items():
            if name not in skip:
                archive.writestr(f"model/{name}", content)
    return path


def read_over(path, array, *ops):
    """What a pickle makes of one storage that holds `array`."""
    file = write(path / "made.pt", b"\x80\x02" + b"".join(ops) + b".", array.tobytes())
    return torchfile.load(file)


def same(a, b) -> None:
    """Equal trees: types, and arrays to the bit."""
    assert type(a) is type(b)
    if isinstance(a, dict):
        assert list(a) == list(b)
        for key in a:
            same(a[key], b[key])
    elif isinstance(a, list | tuple):
        assert len(a) == len(b)
        for x, y in zip(a, b, strict=True):
            same(x, y)
    elif isinstance(a, np.ndarray):
        assert (a.dtype, a.shape, a.tobytes()) == (b.dtype, b.shape, b.tobytes())
    else:
        assert struct.pack("d", a) == struct.pack("d", b) if isinstance(a, float) else a == b


def of_dtype(dtype: np.dtype, shape: tuple):
    size = math.prod(shape) * dtype.itemsize
    values = st.binary(min_size=size, max_size=size)
    if dtype == np.bool_:
        values = values.map(lambda raw: bytes(b & 1 for b in raw))
    return values.map(lambda raw: np.frombuffer(raw, dtype).reshape(shape))


ARRAYS = st.tuples(
    st.sampled_from(sorted(DTYPES.values(), key=str)),
    npst.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=5),
).flatmap(lambda pair: of_dtype(*pair))
LEAVES = ARRAYS | st.none() | st.booleans() | st.integers() | st.floats() | st.text()
LEAVES |= st.sampled_from(sorted(DTYPES.values(), key=str))
TREES = st.recursive(
    LEAVES,
    lambda t: (
        st.lists(t, max_size=4)
        | st.lists(t, max_size=4).map(tuple)
        | st.dictionaries(st.text() | st.integers(), t, max_size=4)
    ),
    max_leaves=12,
)
