"""One run at a time in a checkpoint directory: a lock that says who has it.

The kernel keeps it (`flock`), so that it ends with its process, however that ends. It also holds
between machines on NFS, where Linux asks the server, but not where that is mounted with
`local_lock=flock` or `nolock`, nor on Lustre without `-o flock`. There the file itself counts: it
names host and process, and its time is renewed while the run lives.
Source: flock(2), nfs(5).
"""

import contextlib
import errno
import fcntl
import json
import logging
import os
import pathlib
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from typing import Any

import psutil

log = logging.getLogger(__name__)

BEAT_S = 30.0  # between two signs of life
DEAD_S = 300.0  # a host that gives none for so long is dead; servers cache times for a minute
# What `flock` says on file systems that do not know it.
UNKNOWN = (errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK, errno.EINVAL)


@contextlib.contextmanager
def held(directory: pathlib.Path, wait_s: float = 0.0) -> Iterator[None]:
    """While inside, this process alone may write into a checkpoint directory.

    Args:
        wait_s: seconds to wait for another one.

    Raises:
        ValueError: another run has it; the message says which, and what to do if it is gone.
    """
    deadline = time.monotonic() + wait_s
    while isinstance(file := _taken(path_of(directory)), str):
        if time.monotonic() >= deadline:
            raise ValueError(f"{directory} is in use by {file}")
        time.sleep(0.2)
    done = threading.Event()
    beating = threading.Thread(target=_beat, args=(file, done), daemon=True)
    beating.start()
    try:
        yield
    finally:
        done.set()
        beating.join()
        path_of(directory).unlink(missing_ok=True)
        os.close(file)


def check(directory: pathlib.Path) -> None:
    """Raises ValueError if another run has the directory."""
    if path_of(directory).exists():
        with held(directory):
            pass


def path_of(directory: pathlib.Path) -> pathlib.Path:
    """The lock's file. It lies beside the directory, which a new run of its name moves away."""
    return directory.with_name(f".{directory.name}.lock")


def _taken(path: pathlib.Path) -> int | str:
    """The file, locked for us and named so; or, in words, who has it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    file = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            kernel = True
        except OSError as error:
            kernel = False
            if error.errno not in UNKNOWN:
                return _words(_read(file))
        other = _read(file)
        if other and _lives(other, path, kernel):
            return f"{_words(other)}; if that run is gone, delete {path}"
        # Its last owner may have deleted it since it was opened: a lock that nobody else finds.
        if not path.exists() or not os.path.samestat(os.fstat(file), path.stat()):
            return "a run that ends just now; type the same command again"
        if other:
            log.info("%s is taken over: %s is gone", path, _words(other))
        _write(file)
        locked, file = file, -1
        return locked
    finally:
        if file >= 0:
            os.close(file)


def _lives(other: Mapping[str, Any], path: pathlib.Path, kernel: bool) -> bool:
    """Whether the run that a lock names may be alive though we could have it."""
    if other["host"] == socket.gethostname():
        # A kernel that keeps locks would not have given us that of a living process of its own.
        return not kernel and other["started"] == _started(other["pid"])
    # By the clock of whoever keeps the file: ours may be wrong, or may have been set back.
    probe = path.with_name(f"{path.name}.{os.getpid()}")
    probe.touch()
    now = probe.stat().st_mtime
    probe.unlink()
    return now - path.stat().st_mtime < DEAD_S


def _started(pid: int) -> float | None:
    """When a process of this machine began; a number is given again to others."""
    try:
        return psutil.Process(pid).create_time()
    except psutil.NoSuchProcess:
        return None


def _words(owner: Mapping[str, Any]) -> str:
    return f"process {owner['pid']} on {owner['host']}" if owner else "another process"


def _read(file: int) -> dict[str, Any]:
    try:
        return json.loads(os.pread(file, 4096, 0))
    except ValueError:  # nobody's yet
        return {}


def _write(file: int) -> None:
    pid = os.getpid()
    owner = {"host": socket.gethostname(), "pid": pid, "started": _started(pid)}
    os.ftruncate(file, 0)
    os.pwrite(file, json.dumps(owner).encode(), 0)


def _beat(file: int, done: threading.Event) -> None:
    while not done.wait(BEAT_S):
        with contextlib.suppress(OSError):  # a server that is away for a moment
            os.utime(file)
