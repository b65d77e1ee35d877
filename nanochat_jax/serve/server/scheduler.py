"""The engine's thread: takes requests from anywhere, hands their tokens back, refuses when full."""

import gc
import logging
import sys
import threading
import time
from collections import deque
from collections.abc import Callable

from nanochat_jax.serve.engine import Engine
from nanochat_jax.serve.engine.requests import Generation, Request

logger = logging.getLogger(__name__)

END_S = 3.0  # seconds for the thread to end; only a compilation takes longer


def tune_interpreter() -> None:
    """Sets Python up for a process that only serves, so that no thread waits long for another.

    A full garbage collection walks 200,000 objects of the libraries, 0.2 s in which no thread runs:
    what exists now is left out. What comes later is walked in milliseconds, and has to be: a client
    that leaves in the middle of a reply leaves cycles of tracebacks behind, in the libraries.
    Threads hand over after 1 ms, not 5: the event loop lets go of Python many times while it
    answers, and waits each time.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(1000, 10, 10)
    sys.setswitchinterval(0.001)


class QueueFull(RuntimeError):
    """As many requests wait as may wait: try again later."""


class Scheduler:
    """Runs `engine` in one thread. `queue_limit`: requests that may wait for a slot.

    `ready` is set once everything is compiled and `when_warm` has been called, `when_ready` is
    called when it is set; `error` holds what ended the thread, if it failed.
    """

    def __init__(
        self, engine: Engine, queue_limit: int = 64, when_warm: Callable[[], None] = lambda: None
    ):
        self.engine, self.queue_limit, self._when_warm = engine, queue_limit, when_warm
        self.when_ready: Callable[[], None] = lambda: None
        self.ready = threading.Event()
        self.error: BaseException | None = None
        self.closing = self._hurried = self._stopped = False
        self._incoming: deque[Generation] = deque()
        # The lock: nothing may be queued once the thread has looked for the last time.
        self._lock, self._changed = threading.Lock(), threading.Event()
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)

    def start(self) -> None:
        """Starts compiling, then serving."""
        self._thread.start()

    def submit(self, request: Request, on_update: Callable | None = None) -> Generation:
        """Queues a request from any thread; `on_update` runs in the engine's thread.

        Raises RequestRefused when it is out of range, QueueFull when too many wait already.
        """
        # Outside the lock, which the engine's thread needs: a long prompt is checked id by id.
        self.engine.check(request)
        generation = Generation(request, on_update)
        with self._lock:
            if self.closing or self.error is not None:
                raise QueueFull("the server is shutting down")
            if self.waiting >= self.queue_limit + len(self.engine.slots) - self.engine.active:
                raise QueueFull(f"{self.waiting} requests are waiting already; try again later")
            self._incoming.append(generation)
        self._changed.set()
        return generation

    def cancel(self, generation: Generation) -> None:
        """Frees the generation's slot within one dispatch."""
        generation.cancel()
        self._changed.set()

    @property
    def waiting(self) -> int:
        """Requests without a slot."""
        return len(self._incoming) + self.engine.waiting

    @property
    def alive(self) -> bool:
        """Whether the thread runs."""
        return self._thread.is_alive()

    def close(self, drain_s: float = 0.0) -> None:
        """Takes no more requests, gives running ones `drain_s` seconds, then ends the thread."""
        self.closing = True
        deadline = time.monotonic() + drain_s
        busy = lambda: not self._hurried and (self.waiting or self.engine.active)
        while time.monotonic() < deadline and busy():
            time.sleep(0.02)
        self._stopped = True
        self._changed.set()
        self._thread.join(timeout=END_S)

    def hurry(self) -> None:
        """Lets `close` wait for no reply any longer. May be called by a signal handler."""
        self._hurried = True

    def _run(self) -> None:
        try:
            self.engine.warm_up()
            compiled, slots = self.engine.pool.compilations, len(self.engine.slots)
            logger.info("compiled %d functions for %d slots", compiled, slots)
            self._when_warm()
            self.ready.set()
            if not self.closing:
                self.when_ready()
            # The engine has one user, this thread: others only fill `_incoming` and set flags.
            while not self._stopped:
                self._take_incoming()
                if not self.engine.tick():
                    self._changed.wait(timeout=1.0)
                    self._changed.clear()  # before the next look, which finds what set it
        except Exception as error:
            # A device that failed once stays so: every reply ends, and `/health` answers 503 so
            # that what watches the server starts another.
            logger.exception("the engine failed")
            self.error = error
            self.ready.clear()
        self._take_incoming()
        self.engine.fail_all()

    def _take_incoming(self) -> None:
        with self._lock:
            while self._incoming:
                self.engine.accept(self._incoming.popleft())
