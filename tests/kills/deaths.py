"""Ways to die by SIGKILL at a point that can be named and found again.

A process that is to die counts what it does below a folder (names made, moved, removed; files
synced; pieces written; micro-batches made by the loader's thread) and dies at the n-th of a kind,
or is killed by its parent so many seconds later, wherever it is then. Nothing is mocked: up to its
death every operation is the real one.
"""

import builtins
import contextlib
import functools
import io
import os
import pathlib
import random
import signal
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from typing import Any, NamedTuple

from nanochat_jax.data import ranks

FILE, WRITE, PULL, MOMENT = "file", "write", "pull", "moment"
# What Python tells its audit hooks before it asks the system: every change of names on the disk.
NAMES = ("os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.link", "os.truncate")
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT


class Death(NamedTuple):
    """Before the `at`-th operation of a kind (a write: halfway through it), or `wait_s` after that.

    Of the kind `moment`: so long after the program began.
    """

    kind: str
    at: int = 1
    wait_s: float = 0.0

    @classmethod
    def draw(cls, rng: random.Random, counts: Counter, seconds: float) -> "Death":
        """A death somewhere in a run that does so many operations and takes so long."""
        kind = rng.choice([FILE, FILE, WRITE, *([PULL] if counts[PULL] else []), MOMENT])
        if kind == MOMENT:
            return cls(MOMENT, wait_s=rng.uniform(0, seconds))
        # Half of those at files are some time behind one: TensorStore's own writes, the steps
        # beside a save in flight, and whatever else Python does not see.
        wait_s = rng.uniform(0, 0.3) if kind == FILE and rng.random() < 0.5 else 0.0
        return cls(kind, rng.randint(1, counts[kind]), wait_s)


class Clockwork:
    """Counts this process's operations below `root`, and calls `strike(kind, n)` at the n-th.

    That is before it is done, in the thread that does it; of a write, half is in the file then.
    """

    def __init__(self, root: pathlib.Path, strike: Callable[[str, int], None]):
        self.root, self.strike, self.going = str(root), strike, False
        self.counts: Counter[str] = Counter()
        # One operation at a time: what `strike` finds on the disk is what a death would leave.
        self._lock, self._striking = threading.RLock(), False

    @contextlib.contextmanager
    def wound(self) -> Iterator["Clockwork"]:
        """Counts within the block."""
        unwind = self.wind()
        try:
            yield self
        finally:
            self.going = False
            unwind()

    def wind(self) -> Callable[[], None]:
        """Begins to count; returns what puts Python's own functions back."""
        sys.addaudithook(self._audit)  # it cannot be taken off again
        patched = [(os, "fsync"), (io, "open"), (builtins, "open"), (ranks._Iterator, "__next__")]
        kept = [(*place, getattr(*place)) for place in patched]
        os.fsync = self._before(FILE, os.fsync)
        builtins.open = io.open = self._opened(io.open)
        ranks._Iterator.__next__ = self._before(PULL, ranks._Iterator.__next__)
        self.going = True
        return lambda: [setattr(*place) for place in kept]

    def tick(self, kind: str) -> None:
        """Counts one operation."""
        with self._lock:
            if not self.going or self._striking:  # what `strike` does itself is not counted
                return
            self.counts[kind] += 1
            self._striking = True
            try:
                self.strike(kind, self.counts[kind])
            finally:
                self._striking = False

    def _audit(self, event: str, args: tuple) -> None:
        if not self.going:
            return
        if event in NAMES or (event == "open" and isinstance(args[2], int) and args[2] & WRITING):
            # Below a folder's handle, as `shutil.rmtree` goes, names are relative.
            name = os.fsdecode(args[0]) if isinstance(args[0], str | bytes | os.PathLike) else ""
            if name.startswith(self.root) or not name.startswith("/"):
                self.tick(FILE)

    def _before(self, kind: str, function: Callable) -> Callable:
        @functools.wraps(function)
        def counted(*args: Any, **kw: Any) -> Any:
            self.tick(kind)
            return function(*args, **kw)

        return counted

    def _opened(self, function: Callable) -> Callable:
        @functools.wraps(function)
        def opened(file: Any, mode: str = "r", *args: Any, **kw: Any) -> Any:
            made = function(file, mode, *args, **kw)
            mine = mode[0] in "wxa" and str(file).startswith(self.root)
            return _Torn(made, self) if mine else made

        return opened


class _Torn:
    """A file that is written by halves: death comes between them."""

    def __init__(self, file: Any, clockwork: Clockwork):
        self._file, self._clockwork = file, clockwork

    def write(self, data: Any) -> int:
        half = len(data) // 2
        self._file.write(data[:half])
        self._file.flush()
        self._clockwork.tick(WRITE)
        return half + self._file.write(data[half:])

    def writelines(self, lines: Any) -> None:
        for line in lines:
            self.write(line)

    def __enter__(self) -> "_Torn":
        return self

    def __exit__(self, *error: Any) -> None:
        self._file.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


def mortal(root: pathlib.Path, death: Death | None, parent: Connection) -> Clockwork:
    """Makes this process one that dies so, for good.

    `parent` is sent the seconds after which it is to kill, when that time begins.
    """
    told: list[bool] = []

    def strike(kind: str, number: int) -> None:
        if death is None or told or (kind, number) != (death.kind, death.at):
            return
        if not death.wait_s:
            os.kill(os.getpid(), signal.SIGKILL)
        told.append(True)
        parent.send(death.wait_s)

    clockwork = Clockwork(root, strike)
    clockwork.wind()
    if death is not None and death.kind == MOMENT:
        parent.send(death.wait_s)
    return clockwork
