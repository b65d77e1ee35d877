"""What the readers and writers of pickles share: opcodes of plain values, and a look beforehand.

Source: the opcodes as `pickletools` of the standard library describes them.
"""

import pickletools
import struct
from typing import Any


class UnsafeFile(ValueError):
    """A pickle names something that its kind of file has no use for. Nothing of it was run."""


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
        return b"\x8a" + struct.pack("<B", len(raw)) + raw
    if isinstance(value, float):
        return b"G" + struct.pack(">d", value)
    if isinstance(value, bytes):
        return b"B" + struct.pack("<I", len(value)) + value
    raw = value.encode("utf-8", "surrogatepass")
    return b"X" + struct.pack("<I", len(raw)) + raw


def check(pickled: bytes) -> None:
    """Walks the opcodes without running them.

    Raises:
        ValueError: they break off, or a memo index would make the unpickler claim gigabytes.
    """
    for op, argument, _ in pickletools.genops(pickled):
        if op.name in ("PUT", "BINPUT", "LONG_BINPUT") and argument > len(pickled):
            raise ValueError(f"memo index {argument} in {len(pickled)} bytes")
