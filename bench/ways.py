"""Several ways to do one thing, each in a process of its own, asked in turn.

So each way has the devices it wants, and no compiled code, cache or thread of one serves another.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

WAY = "--way"  # the flag by which a script is started as one of its ways


class Done(NamedTuple):
    """What came out, wall clock and processor seconds (of all threads: true on a busy machine)."""

    found: Any
    wall_s: float
    cpu_s: float


class Way:
    """A script's way, waiting in a process to be asked."""

    def __init__(
        self, script: str, name: str, argv: Sequence[str], python: str = sys.executable,
        env: Mapping[str, str] | None = None,
    ):  # fmt: skip
        command = [python, script, *argv, WAY, name]
        pipes = dict(stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        whole = os.environ | (env or {})
        self.name = name
        self.process = subprocess.Popen(command, text=True, env=whole, **pipes)

    def ask(self) -> "Done":
        """What came of doing it once.

        Raises:
            RuntimeError: the process has ended.
        """
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"{' '.join(self.process.args)} ended; run it by hand to see why")
        return Done(*json.loads(line))

    def end(self) -> None:
        """Asks nothing more."""
        self.process.stdin.close()
        self.process.wait()


def serve(do: Callable[[], Any]) -> None:
    """The other end: does it once for every line that comes in."""
    for _ in sys.stdin:
        print(json.dumps(timed(do)), flush=True)


def timed(do: Callable[[], Any]) -> Done:
    """Does it once."""
    wall, cpu = time.perf_counter(), time.process_time()
    found = do()
    return Done(found, time.perf_counter() - wall, time.process_time() - cpu)


def in_turn(
    script: str, names: Sequence[str], argv: Sequence[str], rounds: int
) -> Iterator[dict[str, Done]]:
    """Name -> what came of it, round by round; the first is not to be counted: it compiles."""
    ways = [Way(script, name, argv) for name in names]
    try:
        for _ in range(rounds + 1):
            yield {way.name: way.ask() for way in ways}
    finally:
        for way in ways:
            way.end()
