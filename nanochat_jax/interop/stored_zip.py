"""Zip archives whose members are stored and aligned, so that they can be mapped into memory.

`zipfile` turns to 64-bit fields at 2 GiB already, and torch 2.4 then takes an archive of 2 to 4 GiB
for a damaged one (measured: it adds a member's size to what stands in the place of its offset, and
lands beyond the end); a d20 has 2.1 GB. This writer turns where it must, at 4 GiB.

Source: PKWARE's APPNOTE.TXT 6.3.10, sections 4.3 and 4.5.3.
"""

import struct
import zlib
from collections.abc import Iterable
from typing import BinaryIO

LONG = 0xFFFFFFFF  # from here on a number stands in a 64-bit field
MANY = 0xFFFF  # the same for the count of members
ALIGNMENT = 64  # as torch's own files: a mapped tensor then starts at a cache line
PLAIN, ZIP64 = 20, 45  # versions of the format
DATE = 1 << 5 | 1  # the first of January 1980: equal contents are equal bytes


def write(file: BinaryIO, members: Iterable[tuple[str, bytes | memoryview]]) -> None:
    """Writes an archive to an empty file; of the members' bytes one lies in memory at a time."""
    listed = [_write_member(file, name.encode(), memoryview(data)) for name, data in members]
    start, size, count = file.tell(), sum(map(len, listed)), len(listed)
    file.write(b"".join(listed))
    if max(start, size) >= LONG or count >= MANY:
        numbers = (44, ZIP64, ZIP64, 0, 0, count, count, size, start)
        file.write(b"PK\x06\x06" + struct.pack("<QHHIIQQQQ", *numbers))
        file.write(b"PK\x06\x07" + struct.pack("<IQI", 0, start + size, 1))
    count = min(count, MANY)
    numbers = (0, 0, count, count, _short(size), _short(start), 0)
    file.write(b"PK\x05\x06" + struct.pack("<HHHHIIH", *numbers))


def _write_member(file: BinaryIO, name: bytes, data: memoryview) -> bytes:
    """Writes one member and returns its entry for the list at the end."""
    at, size, crc = file.tell(), data.nbytes, zlib.crc32(data)
    sizes = _long_fields(size, size) if size >= LONG else b""  # of a member's own, always both
    # torch pads with a field "FB" too; a reader skips fields that it does not know.
    padding = -(at + 30 + len(name) + len(sizes) + 4) % ALIGNMENT
    padded = sizes + struct.pack("<2sH", b"FB", padding) + b"Z" * padding
    file.write(b"PK\x03\x04" + _header(name, crc, size, padded) + name + padded)
    file.write(data)
    longs = _long_fields(*(n for n in (size, size, at) if n >= LONG))
    place = struct.pack("<HHHII", 0, 0, 0, 0, _short(at))
    made_by = struct.pack("<H", ZIP64)
    return b"PK\x01\x02" + made_by + _header(name, crc, size, longs) + place + name + longs


def _header(name: bytes, crc: int, size: int, extra: bytes) -> bytes:
    """What a member's own header and its entry in the list have in common."""
    version = ZIP64 if size >= LONG else PLAIN
    sizes = (_short(size), _short(size), len(name), len(extra))
    numbers = (version, 0, 0, 0, DATE, crc, *sizes)
    return struct.pack("<HHHHHIIIHH", *numbers)


def _long_fields(*numbers: int) -> bytes:
    return struct.pack(f"<HH{len(numbers)}Q", 1, 8 * len(numbers), *numbers) if numbers else b""


def _short(number: int) -> int:
    """What stands in a 32-bit place: the number, or the sign that it stands in a 64-bit field."""
    return number if number < LONG else 0xFFFFFFFF
