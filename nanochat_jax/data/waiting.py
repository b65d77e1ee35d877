"""Which files are being read at this moment: what a run that gets no data waits for."""

import contextlib
import pathlib
import threading
import time
from collections.abc import Iterator

_now: dict[int, tuple[str, float]] = {}  # by thread


@contextlib.contextmanager
def reading(path: pathlib.Path, part: str = "") -> Iterator[None]:
    """While inside, this thread waits for a file."""
    thread = threading.get_ident()
    _now[thread] = f"{path}{part}", time.monotonic()
    try:
        yield
    finally:
        del _now[thread]


def told() -> str:
    """What is being read and since when, in words."""
    now = time.monotonic()
    each = [f"reading {what} for {now - since:.0f} s" for what, since in list(_now.values())]
    return ", ".join(each) or "no file is being read; its rows are being made"
