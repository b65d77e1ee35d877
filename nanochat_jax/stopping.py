"""Signals: the one place where programs are asked to stop (servers ask uvicorn).

Python runs a signal's handler in the main thread, between two of its own instructions. While XLA
compiles or a device works there are none, for minutes. So nothing here is left to handlers: the
interpreter writes the number of a signal into a pipe the moment it comes (`signal.set_wakeup_fd`),
a thread reads it, and what takes long runs in another thread, so that the main one can wait for
whichever comes first.
"""

import contextlib
import multiprocessing
import os
import queue
import signal
import sys
import threading
import time
import types
from collections.abc import Callable, Iterator
from typing import Any, NoReturn, TypeVar

T = TypeVar("T")

SIGNALS = (signal.SIGINT, signal.SIGTERM)
# One request may come twice: `timeout` sends it to its child and to the group that this is in.
SAME_S = 0.5
# What a program that has nothing to save may take to close its files, before it just ends.
CLOSING_S = 3.0
# A thread's stack on macOS is half a megabyte, and a deep model is traced by recursion.
STACK_BYTES = 64 * 2**20
SLOW_S, SLOWER_S = 30.0, 60.0  # a wait is told after the first, and then after each of the second


class Interrupted(SystemExit):
    """This program was asked to stop: exit code 130 (SIGINT) or 143 (SIGTERM)."""


class Stop:
    """Whether this program was asked to stop, and a way to wait that ends when it is."""

    def __init__(self) -> None:
        self.number = 0  # of the signal that came
        self._threads = False  # whether a signal can be heard, so that a wait beside makes sense
        self._news: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._work: queue.SimpleQueue[_Job] = queue.SimpleQueue()
        self._worker: threading.Thread | None = None

    @property
    def asked(self) -> bool:
        return self.number != 0

    @property
    def code(self) -> int:
        """The exit code of a program that ends for it."""
        return 128 + self.number

    def check(self) -> None:
        """Raises Interrupted if a signal has come."""
        if self.asked:
            raise Interrupted(self.code)

    def between_steps(self, due: bool = False) -> bool:
        """Asked once before every step: checks, and gives back what is due by the clock. Several
        processes agree on both here."""
        self.check()
        return due

    def run(
        self, work: Callable[[], T], slow: Callable[[float], None] | None = None, *,
        to_its_end: bool = False,
    ) -> T:  # fmt: skip
        """`work()`, done by another thread while this one waits for it or for a signal.

        Args:
            slow: told how many seconds it has been waited for, after half a minute and each minute.
            to_its_end: a signal is no reason to give it up.

        Raises:
            Interrupted: a signal came. The work goes on unheeded, so it must change nothing that is
                still wanted then.
        """
        check = (lambda: None) if to_its_end else self.check
        check()
        if not self._threads:
            return work()
        job = _Job(work, self._news)
        self._hand_over(job)
        self._wait_for(job, slow, check)
        if job.error is not None:
            raise job.error
        return job.result

    def _hand_over(self, job: "_Job") -> None:
        if self._worker is None:
            before = threading.stack_size(STACK_BYTES)
            # A daemon: who stops does not wait for what it has given up.
            self._worker = threading.Thread(target=_serve, args=(self._work,), daemon=True)
            self._worker.start()
            threading.stack_size(before)
        self._work.put(job)

    def _wait_for(
        self, job: "_Job", slow: Callable[[float], None] | None, check: Callable[[], None]
    ) -> None:
        began, patience = time.monotonic(), SLOW_S
        while True:
            try:
                if self._news.get(timeout=patience) is job:
                    return
            except queue.Empty:
                patience = SLOWER_S
                if slow is not None:
                    slow(time.monotonic() - began)
            check()

    def _heard(self, number: int) -> None:
        self.number = number
        self._news.put(None)


class _Job:
    """Work, and what came of it."""

    def __init__(self, work: Callable[[], Any], news: queue.SimpleQueue):
        self._work, self._news = work, news
        self.result: Any = None
        self.error: BaseException | None = None

    def do(self) -> None:
        try:
            self.result = self._work()
        except BaseException as error:  # raised again by the thread that waits
            self.error = error
        self._news.put(self)


def _serve(work: queue.SimpleQueue) -> None:
    while (job := work.get()) is not None:
        job.do()
        del job  # or its arrays would be held until the next one


@contextlib.contextmanager
def in_order() -> Iterator[Stop]:
    """For what saves before it ends: the first signal is only noted, a second ends at once."""
    stop = Stop()
    say = "stopping: what is under way is saved, then this ends; once more to end at once"

    def first(number: int) -> None:
        _say(f"{signal.Signals(number).name}: {say}")
        stop._heard(number)

    with _listening(first, lambda number, frame: None) as stop._threads:
        try:
            yield stop
        finally:
            stop._work.put(None)


@contextlib.contextmanager
def at_once() -> Iterator[None]:
    """For a program's main function: a signal ends it with one line and no traceback.

    What is being written is whole or not there at all, so there is nothing to wait for: the files
    are closed as an exception passes through, and after a few seconds it ends without that.
    """
    raised = threading.Event()

    def first(number: int) -> None:
        said = f"stopped by {signal.Signals(number).name}"
        timer = threading.Timer(CLOSING_S, leave, (128 + number, said))
        timer.daemon = True
        timer.start()

    def handler(number: int, frame: Any) -> None:
        if raised.is_set():  # what closes files after the first is not disturbed
            return
        if _swallows(frame):
            leave(128 + number, f"stopped by {signal.Signals(number).name}")
        raised.set()
        raise Interrupted(128 + number)

    with _listening(first, handler):
        try:
            yield
        except (Interrupted, KeyboardInterrupt) as error:
            code = error.code if isinstance(error, Interrupted) else 130
            leave(code, f"stopped by {signal.Signals(code - 128).name}", flush=True)


def _swallows(frame: types.FrameType | None) -> bool:
    """Whether an exception raised at this point would not come to where it is waited for.

    A module that is being imported may be in the hands of C code, which prints what it gets, and at
    a SystemExit ends the process without a word; what a callback of the garbage collector raises is
    printed with its traceback and ignored. JAX has both.
    """
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            return True
        if frame.f_code.co_name in ("_xla_gc_callback", "__del__"):
            return True
        frame = frame.f_back
    return False


@contextlib.contextmanager
def _listening(
    first: Callable[[int], None], handler: Callable[[int, Any], None]
) -> Iterator[bool]:  # fmt: skip
    """Calls `first` in a thread at the first signal and ends the program at a second; False where
    signals cannot be heard, for this is not the main thread."""
    if threading.current_thread() is not threading.main_thread():
        yield False
        return
    read, write = os.pipe()
    os.set_blocking(write, False)
    # Ignored ones stay so: a shell does that for Ctrl-C where it starts us in the background.
    chosen = [s for s in SIGNALS if signal.getsignal(s) != signal.SIG_IGN]
    old = {number: signal.signal(number, handler) for number in chosen}
    before = signal.set_wakeup_fd(write, warn_on_full_buffer=False)
    listener = threading.Thread(target=_listen, args=(read, first), daemon=True)
    listener.start()
    try:
        yield True
    finally:
        for number, was in old.items():
            signal.signal(number, was)
        signal.set_wakeup_fd(before)
        os.close(write)  # the listener reads the end and closes its own


def _listen(read: int, first: Callable[[int], None]) -> None:
    came = 0.0
    with os.fdopen(read, "rb", buffering=0) as numbers:
        while number := numbers.read(1):
            if number[0] not in SIGNALS:
                continue
            now = time.monotonic()
            if came and now - came >= SAME_S:
                leave(128 + number[0], "ended at once; what was saved before is whole")
            elif not came:
                came = now
                first(number[0])


def run(main: Callable[[list[str]], int]) -> NoReturn:
    """Runs a program's main function and ends the process with what it returns.

    After an error that is at once: where the disk was full, Orbax's threads wait for each other for
    minutes, and Python would wait for them.
    """
    try:
        code = main(sys.argv[1:])
    except SystemExit as left:
        code = left.code
    if isinstance(code, int) and code != 0:
        leave(code, flush=True)
    sys.exit(code)


def leave(code: int, line: str = "", flush: bool = False) -> None:
    """Ends this process now, whatever its threads do, with one line on stderr.

    Python's own way out would wait for threads that download, and take the ground from under those
    that compile.
    """
    if line:
        _say(line)
    with contextlib.suppress(Exception):
        for child in multiprocessing.active_children():
            child.terminate()
        if flush:
            sys.stdout.flush()
            sys.stderr.flush()
    os._exit(code)


def _say(line: str) -> None:
    """A line on stderr, past Python's buffers: another thread may hold their locks."""
    with contextlib.suppress(OSError):
        os.write(2, f"\n{line}\n".encode())
