"""The evaluation's side of one run: starts the keeper, reads it out, cleans up after it."""

import contextlib
import json
import os
import pathlib
import selectors
import signal
import subprocess
import sys
import tempfile
import time
from typing import Any

from nanochat_jax.evals.jail.remove import remove

OUTPUT_BYTES = 64 * 1024  # kept of each stream; the rest is read and dropped
PATIENCE_S = 45.0  # beyond the program's own time, for the keeper to start and to clean up
ROOT = str(pathlib.Path(__file__).resolve().parents[3])
START = (
    "import sys; sys.path.insert(0, {!r}); from nanochat_jax.evals.jail import child; child.main()"
)


def start(job: dict[str, Any]) -> tuple[dict[str, Any], str, str]:
    """(status, stdout, stderr) of one run, of which nothing is left afterwards."""
    work = tempfile.mkdtemp(prefix="nanochat-sandbox-")
    status_r, status_w = os.pipe()
    # -I -S: none of the user's paths or site packages, where a file could stand in for a module.
    command = [sys.executable, "-I", "-S", "-B", "-X", "utf8", "-c", START.format(ROOT)]
    library = os.environ.get("LD_LIBRARY_PATH")  # the interpreter itself may need it to start
    try:
        keeper = subprocess.Popen(
            [*command, str(status_w)], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, pass_fds=(status_w,), cwd=work, start_new_session=True,
            env={"LD_LIBRARY_PATH": library} if library else {},
        )  # fmt: skip
        os.close(status_w)
        with keeper:
            try:
                text = json.dumps(job | {"work": work, "root": ROOT}).encode() + b"\n"
                with contextlib.suppress(BrokenPipeError):  # its own message says why it is gone
                    keeper.stdin.write(text)
                    keeper.stdin.flush()  # not closed: its end means that we are gone
                pipes = [status_r, keeper.stdout.fileno(), keeper.stderr.fileno()]
                status, out, err = _read(pipes, job["timeout_s"] + PATIENCE_S)
            finally:
                _end(keeper)
    finally:
        os.close(status_r)
        remove(work)
    return _parsed(status, err), out, err


def _parsed(status: str, err: str) -> dict[str, Any]:
    """The keeper's answer. What it quotes is the program's, and may be cut off."""
    try:
        return json.loads(status)
    except ValueError:
        return {"setup": f"no answer ({err[-500:]})"}


def _read(pipes: list[int], limit_s: float) -> list[str]:
    """What comes out of each until all are closed or the time is over, the surplus dropped."""
    kept, size = {fd: bytearray() for fd in pipes}, dict.fromkeys(pipes, 0)
    deadline = time.monotonic() + limit_s
    with selectors.DefaultSelector() as selector:
        for fd in pipes:
            selector.register(fd, selectors.EVENT_READ)
        while selector.get_map() and (left := deadline - time.monotonic()) > 0:
            for key, _ in selector.select(left):
                piece = os.read(key.fd, 1 << 16)
                kept[key.fd] += piece[: OUTPUT_BYTES - len(kept[key.fd])]
                size[key.fd] += len(piece)
                if not piece:
                    selector.unregister(key.fd)
    texts = [bytes(kept[fd]).decode("utf-8", "replace") for fd in pipes]
    more = [size[fd] - len(kept[fd]) for fd in pipes]
    note = "\n[{} bytes more were dropped]"
    return [t + (note.format(n) if n else "") for t, n in zip(texts, more, strict=True)]


def _end(keeper: subprocess.Popen) -> None:
    """Ends a keeper: it ends its program when its input closes, and is killed if it does not."""
    with contextlib.suppress(BrokenPipeError):
        keeper.stdin.close()
    try:
        keeper.wait(2.0)
    except subprocess.TimeoutExpired:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(keeper.pid, signal.SIGKILL)
