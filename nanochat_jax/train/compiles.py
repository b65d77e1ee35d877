"""What a run compiles after its warm-up: while XLA compiles, the devices wait.

Each kind of work (a step of rows of one width, an evaluation, a save) may compile when it is done
for the first time. Later it should not, and where it does, the shapes that differ say why.
"""

import collections
import contextlib
import itertools
import logging
import threading
from collections.abc import Iterator, Sequence
from typing import Any

log = logging.getLogger(__name__)

# The logger through which JAX names every function that it hands to XLA, with the types of its
# arguments, at DEBUG (what `jax_log_compiles` shows). Its events for listeners name no types.
JAX_LOGGER = "jax._src.interpreters.pxla"
SHOWN = 4  # arguments of a line; a training step has hundreds


class CompileWatch(logging.Filter):
    """Everything that is compiled while it listens; `late`: a line for each time after warm-up."""

    def __init__(self) -> None:
        super().__init__()
        self.late: list[str] = []
        self._known: dict[str, list[tuple[str, ...]]] = collections.defaultdict(list)
        self._done: set[str] = set()
        self._work: str | None = None
        self._shown = logging.WARNING
        # Replies are sampled in several threads, and each may compile.
        self._lock = threading.Lock()

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        """While inside, what JAX compiles is heard."""
        logger = logging.getLogger(JAX_LOGGER)
        level, self._shown = logger.level, logger.getEffectiveLevel()
        logger.addFilter(self)
        logger.setLevel(logging.DEBUG)
        try:
            yield
        finally:
            logger.setLevel(level)
            logger.removeFilter(self)

    @contextlib.contextmanager
    def during(self, work: str) -> Iterator[None]:
        """What is compiled inside is for that kind of work, which was done before or not."""
        self._work = work
        try:
            yield
        finally:
            self._work = None
            self._done.add(work)

    def filter(self, record: logging.LogRecord) -> bool:
        """Takes note of JAX's line; True for lines that would have been logged without us."""
        if str(record.msg).startswith("Compiling") and len(record.args or ()) >= 2:
            self._heard(*record.args[:2])
        return record.levelno >= self._shown

    def _heard(self, function: Any, avals: Sequence[Any]) -> None:
        types = tuple(aval.str_short() for aval in avals)
        with self._lock:
            known = self._known[str(function)]
            before, late = list(known), self._work in self._done
            known.append(types)
        if late:
            line = f"{self._work} compiled {function} again: {_difference(types, before)}"
            self.late.append(line)
            log.warning("%s", line)


def _difference(types: tuple[str, ...], before: Sequence[tuple[str, ...]]) -> str:
    """Which arguments differ from those of the most similar time before."""
    alike = [other for other in before if len(other) == len(types)]
    if not alike:
        return f"with {', '.join(types[:SHOWN])}"
    numbered = lambda other: zip(itertools.count(), types, other, strict=False)
    found = min(([c for c in numbered(other) if c[1] != c[2]] for other in alike), key=len)
    if not found:
        return "with arguments of the same shapes that lie elsewhere or are weakly typed"
    more = f" and {len(found) - SHOWN} more" if len(found) > SHOWN else ""
    return ", ".join(f"argument {i} {new}, not {old}" for i, new, old in found[:SHOWN]) + more
