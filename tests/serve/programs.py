"""`chat_web` and `chat_cli` as people start them: real processes on a tiny model's checkpoint."""

import contextlib
import dataclasses
import os
import pathlib
import pty
import re
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator

import httpx
import psutil

from nanochat_jax.checkpoint import store
from tests.serve.world import BYTES, random_model

ROOT = pathlib.Path(__file__).resolve().parents[2]
# Makes the standard input the process's controlling terminal (Ctrl-C comes from there), then runs.
ON_OWN_TERMINAL = """
import fcntl, os, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
"""
ESCAPES = re.compile(r"\x1b\[[0-9;?]*[a-zA-Z]")


def make_base(base: pathlib.Path) -> pathlib.Path:
    """A base directory whose sft stage is a tiny random model with a context of 64 tokens."""
    model = random_model(sequence_len=64, n_layer=1)
    BYTES.save(base / "tokenizer")
    meta = {"model_config": dataclasses.asdict(model.cfg), "tokenizer_hash": BYTES.hash}
    store.save(base / "chatsft_checkpoints" / "d1", 1, model.params, meta)
    cache = ROOT / ".cache" / "jax"  # what earlier tests compiled need not be compiled again
    cache.mkdir(parents=True, exist_ok=True)
    (base / "jax_cache").symlink_to(cache)
    return base


def environment(base: pathlib.Path) -> dict[str, str]:
    """The environment of a program that finds our package and `base`."""
    own = {"NANOCHAT_BASE_DIR": str(base), "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT)}
    return {**os.environ, **own, "TERM": "xterm"}


def run(base: pathlib.Path, program: str, *flags: str, **more) -> subprocess.CompletedProcess:
    """Runs a program to its end."""
    usual = {"env": environment(base), "cwd": ROOT, "text": True, "timeout": 240}
    command = [sys.executable, "-m", f"scripts.{program}", *flags]
    return subprocess.run(command, capture_output=True, **usual | more)


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


class WebServer:
    """A running `chat_web`. `url` is where it listens."""

    def __init__(self, base: pathlib.Path, *flags: str):
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        self.process = subprocess.Popen(
            [sys.executable, "-m", "scripts.chat_web", "-p", str(port), *flags],
            env=environment(base), cwd=ROOT, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip

    def wait(self, status: str, within_s: float = 120) -> None:
        """Waits until `/health` tells `status`."""
        deadline = time.monotonic() + within_s
        while time.monotonic() < deadline and self.process.poll() is None:
            with contextlib.suppress(httpx.HTTPError):
                if httpx.get(self.url + "/health", timeout=60).json()["status"] == status:
                    return
            time.sleep(0.05)
        raise AssertionError(f"never {status}: {self.process.poll()}")

    def stop(self) -> tuple[int, float]:
        """Sends SIGTERM; returns (exit code, seconds until the end)."""
        began = time.monotonic()
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(60), time.monotonic() - began


@contextlib.contextmanager
def web_server(base: pathlib.Path, *flags: str) -> Iterator[WebServer]:
    """A `chat_web` that is gone at the end, however the test went."""
    server = WebServer(base, *flags)
    try:
        yield server
    finally:
        server.process.kill()
        server.process.communicate()


class Typist:
    """`chat_cli` on a terminal of its own: types, reads what is on the screen."""

    def __init__(self, base: pathlib.Path, *flags: str):
        self._fd, terminal = pty.openpty()
        self.process = subprocess.Popen(
            [sys.executable, "-c", ON_OWN_TERMINAL, "-m", "scripts.chat_cli", *flags],
            env=environment(base), cwd=ROOT, start_new_session=True,
            stdin=terminal, stdout=terminal, stderr=terminal,
        )  # fmt: skip
        os.close(terminal)
        self.screen = ""

    def __enter__(self):
        return self

    def __exit__(self, *_):
        """The program is gone at the end, however the test went."""
        self.process.kill()
        self.process.wait()
        os.close(self._fd)

    def type(self, keys: str) -> None:
        """Presses keys; "\\r" is Enter, "\\x03" Ctrl-C, "\\x04" Ctrl-D."""
        os.write(self._fd, keys.encode())

    def expect(self, text: str, within_s: float = 60) -> str:
        """Waits until `text` appears; returns the screen up to its end, which is then forgotten."""
        deadline = time.monotonic() + within_s
        while text not in self.screen:
            if time.monotonic() > deadline or not self._read():
                raise AssertionError(f"{text!r} never came; the screen: {self.screen!r}")
        seen, self.screen = self.screen.split(text, 1)
        return seen + text

    def at_prompt(self) -> None:
        """Waits for "User: " and until the program sleeps, that is, waits for a key.

        A Ctrl-C that comes between the prompt and readline's `select` is seen at the next key only.
        """
        self.expect("User: ")
        main_thread, asleep = psutil.Process(self.process.pid), 0
        while asleep < 4:
            time.sleep(0.03)
            asleep = asleep + 1 if main_thread.status() == psutil.STATUS_SLEEPING else 0

    def leave(self) -> int:
        """The exit code, once the program has ended."""
        while self._read():
            pass
        return self.process.wait(60)

    def _read(self) -> bool:
        ready, _, _ = select.select([self._fd], [], [], 60)
        try:
            raw = os.read(self._fd, 4096) if ready else b""
        except OSError:  # the program has closed its end
            raw = b""
        self.screen += ESCAPES.sub("", raw.decode("utf-8", "replace"))
        return bool(raw)
