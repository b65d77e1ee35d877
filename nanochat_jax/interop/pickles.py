"""Pickles that can only build data: read by a machine of our own.

A pickle is a program for a small stack machine, and the standard library's machine calls whatever
the program names. This one pushes plain values, fills lists, tuples and dicts, and calls the few
functions that its caller lists; any other name or opcode is refused. Subclassing `pickle.Unpickler`
would filter names too, but not the opcodes, nor values that reference themselves without end.

Source: the opcodes as `pickletools` of the standard library describes them (protocols 2 to 5).
"""

import dataclasses
import pickle
import pickletools
import struct
from collections.abc import Callable, Mapping
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
    pickled: bytes, names: Mapping[str, Any], *, leaves: tuple[type, ...],
    persistent: Callable[[Any], Any] | None = None,
) -> Any:  # fmt: skip
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
                self.push(argument)
            elif op.name in MADE:
                self.push(MADE[op.name]())
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

    def name(self, module: Any, name: Any) -> None:
        if f"{module}.{name}" not in self.names:
            raise UnsafeFile(f"its pickle asks for {module}.{name}, which such data never need")
        self.push(self.names[f"{module}.{name}"])

    def call(self, function: Any, arguments: Any) -> None:
        if not callable(function) or type(arguments) is not tuple:
            raise UnsafeFile(f"its pickle calls a {type(function).__name__}")
        self.push(function(*arguments))

    def build(self, target: Any, state: Any) -> None:
        """Gives an object its state."""
        if isinstance(target, Placeholder):
            target.state = state
        # A state dict of torch has versions of its modules as an attribute: they are dropped.
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
MADE: dict[str, Callable[[], Any]] = {
    "NONE": lambda: None, "NEWTRUE": lambda: True, "NEWFALSE": lambda: False,
    "EMPTY_TUPLE": tuple, "EMPTY_LIST": list, "EMPTY_DICT": dict,
}  # fmt: skip
ACTIONS: dict[str, Callable[[_Machine, Any], Any]] = {
    **dict.fromkeys(("PROTO", "FRAME"), lambda m, _: None),
    "MARK": lambda m, _: m.marks.append(len(m.stack)),
    "TUPLE": lambda m, _: m.push(tuple(m.since_mark())),
    **{f"TUPLE{n}": lambda m, _, n=n: m.push(tuple(m.take(n))) for n in (1, 2, 3)},
    "APPEND": lambda m, _: m.extend(m.take(1)),
    "APPENDS": lambda m, _: m.extend(m.since_mark()),
    "SETITEM": lambda m, _: m.update(m.take(2)),
    "SETITEMS": lambda m, _: m.update(m.since_mark()),
    **dict.fromkeys(("BINPUT", "LONG_BINPUT"), lambda m, at: m.memo.update({at: m.stack[-1]})),
    "MEMOIZE": lambda m, _: m.memo.update({len(m.memo): m.stack[-1]}),
    **dict.fromkeys(("BINGET", "LONG_BINGET"), lambda m, at: m.push(m.memo[at])),
    "GLOBAL": lambda m, both: m.name(*both.split(" ", 1)),
    "STACK_GLOBAL": lambda m, _: m.name(*m.take(2)),
    **dict.fromkeys(("REDUCE", "NEWOBJ"), lambda m, _: m.call(*m.take(2))),
    "BUILD": lambda m, _: m.build(*m.take(2)),
    "BINPERSID": lambda m, _: m.fetch(*m.take(1)),
}


def _count(value: Any, leaves: tuple[type, ...], count: int, depth: int) -> int:
    """How many values a tree has, checked to be no more, no deeper and no other than it may be."""
    if count > MAX_VALUES or depth > MAX_DEPTH:
        raise ValueError("its pickle nests or repeats values without end")
    if type(value) in (dict, list, tuple):
        for child in value.values() if type(value) is dict else value:
            count = _count(child, leaves, count, depth + 1)
    elif type(value) not in SCALARS and not isinstance(value, leaves):
        raise ValueError(f"its pickle leaves a {type(value).__name__} where data belong")
    return count + 1


def plain(value: Any) -> bytes:
    """The opcodes that push plain values, or a tree of them (protocol 3)."""
    ops = pickletools.optimize(pickle.dumps(value, 3))[2:-1]  # without their frame of a pickle
    if ops.startswith(pickle.LONG4):
        raise ValueError(f"an integer of {value.bit_length()} bits is too long for this format")
    return ops
