"""Who of a run's processes has died: the others end with a message that names it.

Each process says every two seconds that it is alive, and looks at what the others say. One that
ends by an error of its own says so first. A collective whose partner is gone fails at once over
TCP and hangs on GPUs; this ends both, also while something compiles or downloads.

JAX's own watch ends processes too, by an abort that names a number. It is kept as the second line:
the death of process 0, with whom the coordination service goes, is always found by it first.
"""

import contextlib
import itertools
import os
import socket
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from typing import Any

BEAT_S, DEAD_S = 2.0, 25.0
# Process 0 ends last: the coordination service goes with it, and aborts whoever has not left.
LINGER_S = 2 * BEAT_S
ALIVE, WHO, GONE = "nanochat/alive", "nanochat/who", "nanochat/gone"
ADVICE = (
    "all processes end here; what is saved is whole: start them again with --resume, or fewer of "
    "them (docs/several-machines.md)"
)
_watch: "Watch | None" = None


class Watch(threading.Thread):
    """Says that process `index` of `count` is alive; ends it when another is not."""

    def __init__(self, client: Any, index: int, count: int):
        super().__init__(name="watch", daemon=True)
        self.client, self.index, self.count = client, index, count
        self.done, self.ending = threading.Event(), threading.Event()
        self.who: dict[int, str] = {}
        client.key_value_set(f"{WHO}/{index}", f"{socket.gethostname()}, pid {os.getpid()}")

    def run(self) -> None:
        pulse, beats = Pulse(self.count, time.monotonic()), itertools.count()
        try:
            while not self.done.wait(BEAT_S):
                self.client.key_value_set(f"{ALIVE}/{self.index}", str(next(beats)), True)
                self.who |= self._values(WHO)
                self._look(pulse)
        except RuntimeError:
            # JAX aborts the process at this; a word of ours comes first where it can.
            self.end(0, "and with it what holds all together, does not answer")

    def _look(self, pulse: "Pulse") -> None:
        for other, reason in self._values(GONE).items():
            self.end(other, reason)
        silent = pulse.silent(self._values(ALIVE), time.monotonic())
        if silent is not None:
            self.end(silent, f"has not answered for {DEAD_S:.0f} s")

    def _values(self, folder: str) -> Mapping[int, str]:
        found = self.client.key_value_dir_get(folder)
        return {int(key.rsplit("/", 1)[1]): value for key, value in found}

    def end(self, other: int, what: str) -> None:
        """Ends this process, for the other one's sake."""
        if self.done.is_set():
            return
        self.ending.set()
        name = f"process {other} of {self.count} ({self.who.get(other, 'never seen')})"
        print(f"error: {name} {what}; {ADVICE}", file=sys.stderr)
        leave(1, self.index)

    def tell(self, reason: str) -> None:
        """Tells the others that this process ends by an error of its own."""
        self.done.set()
        with contextlib.suppress(RuntimeError):  # process 0 may be gone already
            self.client.key_value_set(f"{GONE}/{self.index}", reason, True)


class Pulse:
    """When each process was last heard of, by this one's clock alone."""

    def __init__(self, count: int, now: float):
        self._heard = {i: ("", now) for i in range(count)}

    def silent(self, said: Mapping[int, str], now: float) -> int | None:
        """The process that has said nothing new for too long; None: all are alive."""
        for i, value in said.items():
            if value != self._heard[i][0]:
                self._heard[i] = value, now
        late = [i for i, (_, at) in self._heard.items() if now - at > DEAD_S]
        return late[0] if late else None


def start(client: Any, index: int, count: int) -> None:
    """Begins to watch."""
    global _watch
    _watch = Watch(client, index, count)
    _watch.start()


@contextlib.contextmanager
def leaving() -> Iterator[None]:
    """Around a program: one that fails tells the others why, and all end. Alone it does nothing."""
    try:
        yield
    except BaseException as error:
        if _watch is not None:
            _fail(_watch, error)
        raise
    part()


def part() -> None:
    """Waits for the others, who may have work left, and takes leave of them. Alone: nothing."""
    global _watch
    if _watch is None:
        return
    import jax

    from nanochat_jax.hosts import group

    group.wait()
    _watch.done.set()
    _watch = None
    jax.distributed.shutdown()


def _fail(watch: Watch, error: BaseException) -> None:
    """Ends the process, with what a person wants to know."""
    asked = isinstance(error, SystemExit)  # its message is printed already
    cause = (error.__context__ or error) if asked else error
    if _of_a_collective(error):
        print("error: the exchange with another process failed; which?", file=sys.stderr)
        # The watch names the dead and ends this process; if nobody is dead, the error is our own.
        if watch.ending.wait(DEAD_S + 3 * BEAT_S):
            time.sleep(2 * LINGER_S)
    if not asked:
        sys.excepthook(type(error), error, error.__traceback__)
    watch.tell(f"ended: {cause or type(cause).__name__}")
    leave(error.code if asked and isinstance(error.code, int) else 1, watch.index)


def _of_a_collective(error: BaseException) -> bool:
    import jax

    return isinstance(error, jax.errors.JaxRuntimeError)


def leave(code: int, index: int) -> None:
    """Ends the process without JAX's farewell, which would wait for the dead."""
    if index == 0:
        time.sleep(LINGER_S)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
