"""While a model loads for a chat: at once what it is, how long that takes, how far it has come."""

import contextlib
import json
import os
import pathlib
import threading
import time
from typing import TextIO

from nanochat_jax import files
from nanochat_jax.config import paths
from nanochat_jax.config.serve import ChatCLI

FIRST_TIME = "the first time it is compiled, which may take a minute"
TICK_S = 0.25
ERASE = "\r\x1b[K"


class Loading:
    """A line that moves while a program gets ready, gone at the end of the `with`.

    Nothing here imports JAX, which alone takes seconds. Without a terminal nobody waits: no line.
    """

    def __init__(self, what: str, times: pathlib.Path, key: str, out: TextIO):
        self._what, self._times, self._key, self._out = what, times, key, out
        self._usual_s = self._known().get(key)
        self._began, self._phase = time.monotonic(), "starting JAX"
        self._over, self._shown = threading.Event(), out.isatty()
        self._moves = self._shown and os.environ.get("TERM") != "dumb"
        self._ticks = threading.Thread(target=self._tick, daemon=True)

    def __enter__(self) -> "Loading":
        if self._shown and not self._moves:
            print(self._line(), file=self._out, flush=True)
        if self._moves:
            self._draw()
            self._ticks.start()
        return self

    def __exit__(self, *_) -> None:
        if self._moves and not self._over.is_set():
            self._over.set()
            self._ticks.join()  # which may be drawing
            print(ERASE, end="", file=self._out, flush=True)

    def phase(self, name: str) -> None:
        """What is being done now."""
        self._phase = name

    def ready(self) -> None:
        """Ends the line, and keeps how long it took, for the next time."""
        if self._over.is_set():
            return
        self.__exit__()
        self._over.set()
        seconds = round(time.monotonic() - self._began, 1)
        with contextlib.suppress(OSError):  # a model may lie where we cannot write
            files.write_json(self._times, self._known() | {self._key: seconds})

    def _known(self) -> dict[str, float]:
        with contextlib.suppress(OSError, ValueError):
            known = json.loads(self._times.read_text(encoding="utf-8"))
            return {k: v for k, v in known.items() if isinstance(v, int | float)}
        return {}

    def _line(self) -> str:
        so_far = f"{time.monotonic() - self._began:.0f} s"
        usual = f"of about {self._usual_s:.0f}" if self._usual_s else f"({FIRST_TIME})"
        return f"{self._what}: {self._phase}, {so_far} {usual}"

    def _draw(self) -> None:
        with contextlib.suppress(OSError, ValueError):  # the terminal is gone
            width = os.get_terminal_size(self._out.fileno()).columns or 80
            print(ERASE + self._line()[: width - 1], end="", file=self._out, flush=True)

    def _tick(self) -> None:
        while not self._over.wait(TICK_S):
            self._draw()


def loading(cfg: ChatCLI, out: TextIO) -> Loading:
    """The line of the checkpoint that `cfg` names, found by the names of folders alone."""
    root = paths.base_dir()
    folder = paths.checkpoints(root, cfg.source)
    tag = cfg.model_tag or paths.guess_tag(folder) or ""
    step = cfg.step if cfg.step >= 0 else max(paths.steps(folder / tag), default=0)
    what = f"nanochat-{cfg.source}-{tag}, step {step}" if tag else f"stage {cfg.source}"
    kept = (cfg.source, tag, cfg.dtype, cfg.device_type, cfg.int8, cfg.prompt is None)
    return Loading(what, paths.loading_times(root), " ".join(map(str, kept)), out)
