"""Files that people write, edit or send: the one place that opens and decodes them.

UTF-8, with or without a byte order mark, with whatever line ends, and gzipped where the name ends
in `.gz`, in capitals too. Nothing is held whole unless `read_text` is asked for it.
"""

import codecs
import gzip
import io
import pathlib
import zlib
from collections.abc import Iterator
from typing import IO

BOM = "\ufeff"
UTF_16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)  # UTF-32 begins with the first of them too
# A line is held whole, and a small `.gz` can hold one of any length.
LONGEST_LINE = 2**28
CHUNK = 2**20


def ending(path: pathlib.Path) -> str:
    """What a file is by its name: `.txt` of `A.TXT` and of `a.txt.gz`."""
    gz = is_zipped(path)
    return (path.with_suffix("") if gz else path).suffix.lower()


def is_zipped(path: pathlib.Path) -> bool:
    return path.suffix.lower() == ".gz"


def read_lines(path: pathlib.Path) -> Iterator[str]:
    """The lines, which end at a line feed alone; without it, and without a `\\r` before it.

    Not `str.splitlines`: JSON may hold U+2028 and others as they are, which end lines for it.

    Raises:
        ValueError: naming file and line, where it is not UTF-8, damaged or without an end.
    """
    number = 0
    try:
        with _opened(path) as file:
            while line := file.readline(LONGEST_LINE + 1):
                number += 1
                if len(line) > LONGEST_LINE:
                    raise ValueError(f"{path}, line {number} has more than {LONGEST_LINE:,} bytes")
                # Files that were joined have a mark where each began.
                yield line.decode("utf-8").lstrip(BOM).removesuffix("\n").removesuffix("\r")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}, line {number}: not UTF-8 text ({error})") from None
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise ValueError(f"{path} is damaged after line {number}: {error}") from None


def read_chunks(path: pathlib.Path) -> Iterator[str]:
    """The text in pieces of about a million characters, with `\\n` for every line end.

    Raises:
        ValueError: naming the file, which is not UTF-8 text, or damaged.
    """
    try:
        with _opened(path) as file, io.TextIOWrapper(file, encoding="utf-8") as text:
            while chunk := text.read(CHUNK):
                if "\0" in chunk:
                    raise ValueError(f"{path}: not UTF-8 text (it holds zero bytes)")
                yield chunk.replace(BOM, "")  # where it is not a mark, it is a blank of no width
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: not UTF-8 text ({error})") from None
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise ValueError(f"{path} is damaged: {error}") from None


def read_text(path: pathlib.Path) -> str:
    """The whole text; raises as `read_chunks`."""
    return "".join(read_chunks(path))


def _opened(path: pathlib.Path) -> IO[bytes]:
    """The open file, unpacked. Raises ValueError for UTF-16, FileNotFoundError."""
    file = gzip.open(path) if is_zipped(path) else path.open("rb")
    try:
        if file.peek(2)[:2] in UTF_16:
            raise ValueError(f"{path}: not UTF-8 text but UTF-16; save it as UTF-8")
    except BaseException:
        file.close()
        raise
    return file
