"""Reads the text of an optimised HLO module: computations, instructions, what calls what.

Only what XLA prints (`compiled.as_text()`) is relied on; its protos are not in any Python package.
"""

import collections
import dataclasses
import math
import re
from collections.abc import Iterator, Mapping
from typing import NamedTuple

BITS = {"pred": 8, "s4": 4, "u4": 4, "token": 0, "opaque": 0}  # others end in their number of bits
COLLECTIVES = (
    "all-reduce", "all-gather", "reduce-scatter", "all-to-all", "ragged-all-to-all",
    "collective-permute", "collective-broadcast",
)  # fmt: skip
_ARRAY = re.compile(r"\b([a-z][a-z0-9]*)\[([0-9,]*)\]")
_HEAD = re.compile(r"^(ENTRY )?%?([\w.\-]+) \(.*\{$")
_INSTRUCTION = re.compile(r"^\s+(ROOT )?%?([\w.\-]+) = (.*)$")
_OPCODE = re.compile(r"\s*([a-z][a-z0-9\-]*)\(")
_CALLED = re.compile(
    r"\b(calls|body|to_apply|condition|true_computation|false_computation|branch_computations)"
    r"=(?:\{([^}]*)\}|%?([\w.\-]+))"
)


class Array(NamedTuple):
    """One array of a shape: its type as HLO spells it, and its sizes."""

    dtype: str
    dims: tuple[int, ...]

    @property
    def size(self) -> int:
        return math.prod(self.dims)

    @property
    def nbytes(self) -> int:
        digits = re.match(r"[a-z]+(\d+)", self.dtype)
        bits = BITS.get(self.dtype, int(digits[1]) if digits else 32)
        return -(-self.size * bits // 8)


@dataclasses.dataclass(frozen=True)
class Instruction:
    """One line: `%name = shape op(operands), attributes`; `arrays` are those of its shape."""

    name: str
    op: str
    arrays: tuple[Array, ...]
    operands: tuple[str, ...]
    attributes: str
    root: bool

    @property
    def nbytes(self) -> int:
        return sum(array.nbytes for array in self.arrays)

    @property
    def target(self) -> str:
        """The kernel of a library that a custom call names; empty for what is none."""
        return self._find(r'custom_call_target="([^"]*)"')

    @property
    def op_name(self) -> str:
        """Where in the Python program it comes from."""
        return self._find(r'op_name="([^"]*)"')

    @property
    def trips(self) -> int | None:
        """How often a loop runs; None where that depends on data."""
        count = self._find(r'known_trip_count":\{"n":"(\d+)"')
        return int(count) if count else None

    def called(self, *kinds: str) -> list[str]:
        """Names of the computations that it calls, in those attributes or in any."""
        found = _CALLED.findall(self.attributes)
        chosen = [many or one for kind, many, one in found if not kinds or kind in kinds]
        return [name.strip().lstrip("%") for names in chosen for name in names.split(",")]

    def _find(self, pattern: str) -> str:
        found = re.search(pattern, self.attributes)
        return found[1] if found else ""


Computation = Mapping[str, Instruction]  # by name, in the order of the schedule


@dataclasses.dataclass(frozen=True)
class Module:
    """A whole program. `computations[entry]` is what runs; others run where they are called."""

    computations: Mapping[str, Computation]
    entry: str

    def instructions(self) -> Iterator[tuple[str, Instruction]]:
        """(its computation, instruction) of the whole program, fused ones among them."""
        for name, computation in self.computations.items():
            for instruction in computation.values():
                yield name, instruction

    def launched(self) -> Iterator[tuple[str, Instruction]]:
        """The same without what runs inside of a kernel: its results alone lie in memory."""
        fused = self.reachable(
            {c for _, i in self.instructions() if "fusion" in i.op for c in i.called("calls")}
            | {c for _, i in self.instructions() for c in i.called("to_apply") if i.op != "call"}
        )
        return ((c, i) for c, i in self.instructions() if c not in fused)

    def in_loops(self) -> set[str]:
        """Names of the computations that run in some loop."""
        bodies = {b for _, i in self.instructions() if i.op == "while" for b in i.called("body")}
        return self.reachable(bodies)

    def runs(self) -> dict[str, int]:
        """How often each computation runs in one run of the program; a loop whose length depends
        on data counts one turn."""
        found: dict[str, int] = collections.Counter()
        waiting = [(self.entry, 1)]
        while waiting:
            name, times = waiting.pop()
            found[name] += times
            for i in self.computations[name].values():
                inner = times * (i.trips or 1 if i.op == "while" else 1)
                waiting += [(c, inner) for c in i.called() if c in self.computations]
        return found

    def reachable(self, names: set[str]) -> set[str]:
        """Those computations and all that they call."""
        found, waiting = set(), list(names)
        while waiting:
            if (name := waiting.pop()) not in found and name in self.computations:
                found.add(name)
                waiting += [c for i in self.computations[name].values() for c in i.called()]
        return found


def parse(text: str) -> Module:
    """The module of a compiled program's text; ValueError where there is no entry."""
    computations: dict[str, dict[str, Instruction]] = {}
    entry = current = None
    for line in text.splitlines():
        if head := _HEAD.match(line):
            current = computations.setdefault(head[2], {})
            entry = head[2] if head[1] else entry
        elif line.startswith("}"):
            current = None
        elif current is not None and (found := _INSTRUCTION.match(line)):
            instruction = _instruction(found[2], found[3], root=bool(found[1]))
            current[instruction.name] = instruction
    if entry is None:
        raise ValueError("no HLO: expected the text of a compiled program with an ENTRY")
    return Module(computations, entry)


def _instruction(name: str, text: str, *, root: bool) -> Instruction:
    # A tuple's shape has parentheses of its own; an array's shape ends at the first blank.
    end = _closing(text, 0) + 1 if text.startswith("(") else text.index(" ")
    op = _OPCODE.match(text, end)
    close = _closing(text, op.end() - 1)
    operands = re.findall(r"%([\w.\-]+)", text[op.end() : close])
    arrays = tuple(_arrays(text[:end]))
    return Instruction(name, op[1], arrays, tuple(operands), text[close + 1 :], root)


def _arrays(shape: str) -> Iterator[Array]:
    for dtype, dims in _ARRAY.findall(shape):
        yield Array(dtype, tuple(int(d) for d in dims.split(",") if d))


def _closing(text: str, start: int) -> int:
    """Where the parenthesis that opens at `start` closes."""
    depth = 0
    for found in re.finditer(r"[()]", text[start:]):
        depth += 1 if found[0] == "(" else -1
        if depth == 0:
            return start + found.start()
    raise ValueError(f"unbalanced parentheses in {text[:80]!r}")
