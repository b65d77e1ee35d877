"""Pickles that can only build data: read by a machine of our own, written opcode by opcode.

A pickle is a program for a small stack machine, and the standard library's machine calls whatever
the program names. This one pushes plain values, fills lists, tuples and dicts, and calls the few
functions that its caller lists; any other name or opcode is refused. Subclassing `pickle.Unpickler`
would filter names too, but not the opcodes, nor values that reference themselves without end.

Source: the opcodes as `pickletools` of the standard library describes them (protocols 2 to 5).
"""

import dataclasses
import pickletools
import struct
from collections.abc import Callable, Iterator, Mapping
from typing import Any

# A pickle here holds a tree of names or a vocabulary; the numbers of tensors lie outside it.
MAX_BYTES = 16 * 2**20
MAX_DEPTH = 64
# Counted in the tree written out in full: through the memo, a few opcodes can nest one list in
# itself a billion times, which costs nothing until someone walks over it.
MAX_VALUES = 2**22


class UnsafeFile(ValueError):
    """A pickle names something that its kind of file has no use for. Nothing of it was run."""


@dataclasses.dataclass
class Placeholder:
    """Stands for an object whose class is never imported: the state it was saved with."""

    state: Any = None


def read(
    pickled: bytes,
    names: Mapping[str, Any],
    *,
    persistent: Callable[[Any], Any] | None = None,
    leaves: tuple[type, ...] = (),
) -> Any:
    """The tree that a pickle describes: dicts, lists, tuples, plain values, and `leaves`.

    `names` says what `module.name` stands for: a function may be called, all else is only passed
    on. `persistent` gives what a persistent id stands for.

    Raises:
        UnsafeFile: it asks for anything else.
        ValueError: it breaks off or makes no sense.
    """
    if len(pickled) > MAX_BYTES:
        raise ValueError(f"its pickle has {len(pickled):,} bytes, expected at most {MAX_BYTES:,}")
    try:
        tree = _Machine(names, persistent).run(pickled)
    except (IndexError, KeyError, TypeError, OverflowError, struct.error) as error:
        raise ValueError(f"its pickle makes no sense: {type(error).__name__} {error}") from None
    _count(tree, leaves, 0, 0)
    return tree


class _Machine:
    """The stack, the marks and the memo of one pickle."""

    def __init__(self, names: Mapping[str, Any], persistent: Callable[[Any], Any] | None):
        self.names, self.persistent = names, persistent
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}

    def run(self, pickled: bytes) -> Any:
        for op, argument, _ in pickletools.genops(pickled):
            if op.name == "STOP":
                return self.stack.pop()
            if op.name in LITERALS:
                self.stack.append(argument)
            elif op.name in ACTIONS:
                ACTIONS[op.name](self, argument)
            else:
                raise UnsafeFile(
                    f"its pickle uses the opcode {op.name}, which data have no use for"
                )

    def push(self, value: Any) -> None:
        self.stack.append(value)

    def take(self, count: int) -> list[Any]:
        """The last `count` values, taken off the stack."""
        return self.cut(len(self.stack) - count)

    def since_mark(self) -> list[Any]:
        return self.cut(self.marks.pop())

    def cut(self, at: int) -> list[Any]:
        if at < (self.marks[-1] if self.marks else 0):
            raise ValueError("its pickle takes more values than it put")
        taken = self.stack[at:]
        del self.stack[at:]
        return taken

    def extend(self, items: list[Any]) -> None:
        if type(self.stack[-1]) is not list:
            raise ValueError(f"its pickle appends to a {type(self.stack[-1]).__name__}")
        self.stack[-1].extend(items)

    def update(self, items: list[Any]) -> None:
        if type(self.stack[-1]) is not dict or len(items) % 2:
            raise ValueError(f"its pickle sets items of a {type(self.stack[-1]).__name__}")
        for key, value in zip(items[::2], items[1::2], strict=True):
            # A tuple's hash walks all of it, and tuples of the same tuples double at every level.
            if type(key) not in SCALARS:
                raise ValueError(f"its pickle has a dict key of type {type(key).__name__}")
            self.stack[-1][key] = value

    def remember(self, index: int) -> None:
        self.memo[index] = self.stack[-1]

    def name(self, module: Any, name: Any) -> None:
        if f"{module}.{name}" not in self.names:
            raise UnsafeFile(f"its pickle asks for {module}.{name}, which such data never need")
        self.push(self.names[f"{module}.{name}"])

    def call(self, function: Any, arguments: Any) -> None:
        if not callable(function) or type(arguments) is not tuple:
            raise UnsafeFile(f"its pickle calls a {type(function).__name__}")
        self.push(function(*arguments))

    def build(self, target: Any, state: Any) -> None:
        """Gives an object its state.

        A state dict of torch carries versions of its modules (`_metadata`) as an attribute of the
        dict; nothing reads them, so they are dropped.
        """
        if isinstance(target, Placeholder):
            target.state = state
        elif type(target) is not dict:
            raise UnsafeFile(f"its pickle sets attributes of a {type(target).__name__}")
        self.push(target)

    def fetch(self, name: Any) -> None:
        if self.persistent is None:
            raise UnsafeFile("its pickle refers to things outside itself")
        self.push(self.persistent(name))


SCALARS = frozenset({str, bytes, int, float, bool, type(None)})
LITERALS = frozenset(
    "BININT BININT1 BININT2 LONG1 LONG4 BINFLOAT BINUNICODE SHORT_BINUNICODE BINUNICODE8 "
    "BINBYTES SHORT_BINBYTES BINBYTES8".split()
)
ACTIONS: dict[str, Callable[[_Machine, Any], Any]] = {
    "PROTO": lambda m, _: None,
    "FRAME": lambda m, _: None,
    "NONE": lambda m, _: m.push(None),
    "NEWTRUE": lambda m, _: m.push(True),
    "NEWFALSE": lambda m, _: m.push(False),
    "EMPTY_TUPLE": lambda m, _: m.push(()),
    "EMPTY_LIST": lambda m, _: m.push([]),
    "EMPTY_DICT": lambda m, _: m.push({}),
    "MARK": lambda m, _: m.marks.append(len(m.stack)),
    "TUPLE": lambda m, _: m.push(tuple(m.since_mark())),
    "TUPLE1": lambda m, _: m.push(tuple(m.take(1))),
    "TUPLE2": lambda m, _: m.push(tuple(m.take(2))),
    "TUPLE3": lambda m, _: m.push(tuple(m.take(3))),
    "APPEND": lambda m, _: m.extend(m.take(1)),
    "APPENDS": lambda m, _: m.extend(m.since_mark()),
    "SETITEM": lambda m, _: m.update(m.take(2)),
    "SETITEMS": lambda m, _: m.update(m.since_mark()),
    "BINPUT": lambda m, index: m.remember(index),
    "LONG_BINPUT": lambda m, index: m.remember(index),
    "MEMOIZE": lambda m, _: m.remember(len(m.memo)),
    "BINGET": lambda m, index: m.push(m.memo[index]),
    "LONG_BINGET": lambda m, index: m.push(m.memo[index]),
    "GLOBAL": lambda m, both: m.name(*both.split(" ", 1)),
    "STACK_GLOBAL": lambda m, _: m.name(*m.take(2)),
    "REDUCE": lambda m, _: m.call(*m.take(2)),
    "NEWOBJ": lambda m, _: m.call(*m.take(2)),
    "BUILD": lambda m, _: m.build(*m.take(2)),
    "BINPERSID": lambda m, _: m.fetch(*m.take(1)),
}


def _count(value: Any, leaves: tuple[type, ...], count: int, depth: int) -> int:
    """How many values a tree has, checked to be no more, no deeper and no other than it may be."""
    if count > MAX_VALUES or depth > MAX_DEPTH:
        raise ValueError("its pickle nests or repeats values without end")
    if type(value) is dict:
        children = value.values()
    elif type(value) in (list, tuple):
        children = value
    elif type(value) in SCALARS or isinstance(value, leaves):
        children = ()
    else:
        raise ValueError(f"its pickle leaves a {type(value).__name__} where data belong")
    for child in children:
        count = _count(child, leaves, count, depth + 1)
    return count + 1


def dump(value: Any, leaf: Callable[[Any], bytes]) -> Iterator[bytes]:
    """The opcodes that leave a tree on the stack; `leaf` gives those of what is no container."""
    items = lambda values: (op for v in values for op in dump(v, leaf))
    if isinstance(value, dict):
        yield from (b"}(", *items(v for pair in value.items() for v in pair), b"u")
    elif isinstance(value, list):
        yield from (b"](", *items(value), b"e")
    elif isinstance(value, tuple):
        yield from (b"(", *items(value), b"t")
    else:
        yield leaf(value)


def plain(value: Any) -> bytes:
    """The opcodes that push a string, bytes, a number, a truth value or None (protocol 3)."""
    if value is None:
        return b"N"
    if isinstance(value, bool):
        return b"\x88" if value else b"\x89"
    if isinstance(value, int):
        if -(2**31) <= value < 2**31:
            return b"J" + struct.pack("<i", value)
        raw = value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)
        if len(raw) > 255:
            raise ValueError(f"an integer of {value.bit_length()} bits is too long for this format")
        return b"\x8a" + bytes([len(raw)]) + raw
    if isinstance(value, float):
        return b"G" + struct.pack(">d", value)
    if isinstance(value, bytes):
        return b"B" + struct.pack("<I", len(value)) + value
    raw = value.encode("utf-8", "surrogatepass")
    return b"X" + struct.pack("<I", len(raw)) + raw
