"""The keeper of one run: starts the program in its jail, watches the clock, reports how it ended.

Started as a fresh interpreter by `evals/jail/launch.py`, which writes the job as one line of JSON
to standard input and keeps that pipe open: when it closes, the evaluation is gone and so is the
run. The keeper itself runs nothing of the program, and the program cannot reach it.
"""

import contextlib
import json
import os
import resource
import select
import signal
import sys
import time
from typing import Any

from nanochat_jax.evals.jail import guard, program

SETUP_S = 20.0  # to build the jail, on a busy machine
TICK_S = 0.05
REPORT_BYTES = 65536
PROCESSES, OPEN_FILES, FILE_BYTES, HOME_BYTES = 64, 64, 16 << 20, 64 << 20
READY, REFUSED = b"R", b"E"


def main() -> None:
    """Does the job on standard input; one line of JSON goes to the descriptor in `argv[1]`."""
    status = int(sys.argv[1])
    with open(0, "rb", closefd=False) as pipe:
        job = json.loads(pipe.readline())
    sys.path[:] = [p for p in sys.path if p != job["root"]]
    sys.argv[:] = [""]
    os.environ.clear()
    os.environ.update({"PATH": "/usr/bin:/bin", "OMP_NUM_THREADS": "1"})
    try:
        answer = keep(job, status)
    except OSError as error:
        answer = {"setup": str(error)}
    os.write(status, json.dumps(answer).encode())
    os._exit(0)


def keep(job: dict[str, Any], status: int) -> dict[str, Any]:
    """Starts the program and reports how it ended; nothing of it is left when this returns."""
    report_r, report_w = os.pipe()
    proof_r, proof_w = os.pipe()
    if sys.platform == "linux":
        from nanochat_jax.evals.jail import libc, namespaces

        # Processes whose parent ends become ours, and are found and killed at the end.
        libc.prctl(libc.PR_SET_CHILD_SUBREAPER, 1)
        if "namespaces" in job["layers"]:
            namespaces.enter()
        libc.prctl(libc.PR_SET_DUMPABLE, 0)  # the program may not trace its keeper
    pid = os.fork()
    if pid == 0:
        for fd in (status, report_r, proof_w):
            os.close(fd)
        worker(job, report_w, proof_r)
    # Drawn after the fork. A program that writes to the report pipe itself would have to know it.
    number = os.urandom(program.PROOF_BYTES)  # not in the memory that the program got a copy of
    os.write(proof_w, number)
    for fd in (report_w, proof_r, proof_w):
        os.close(fd)
    try:
        return watch(pid, report_r, number, job["timeout_s"])
    finally:
        end(pid)


def watch(pid: int, report: int, number: bytes, timeout_s: float) -> dict[str, Any]:
    """How the program ended, or that it was too slow."""
    text = b""
    deadline, started, seconds, code = time.monotonic() + SETUP_S, 0.0, 0.0, None
    pipes = select.poll()
    pipes.register(0, 0)  # only its end counts: the evaluation is gone
    pipes.register(report, select.POLLIN)
    gone = os.pidfd_open(pid) if hasattr(os, "pidfd_open") else None
    if gone is not None:
        pipes.register(gone, select.POLLIN)
    while code is None and time.monotonic() < deadline:
        for fd, _ in pipes.poll(1000 * min(TICK_S, max(0.0, deadline - time.monotonic()))):
            if fd == 0:
                return {"setup": "the evaluation went away"}
            if fd == gone:
                continue
            piece = os.read(report, REPORT_BYTES)
            text += piece[: REPORT_BYTES - len(text)]
            if not piece:
                pipes.unregister(report)
            if not started and text[:1] == READY:
                # From here on it is the program's own time: start-up is not its fault.
                started = time.monotonic()
                deadline = started + timeout_s
        code = _ended(pid)
        seconds = time.monotonic() - (started or time.monotonic())
    with contextlib.suppress(BlockingIOError):
        os.set_blocking(report, False)
        text += os.read(report, REPORT_BYTES)
    if not started:
        return {"setup": text[1:].decode("utf-8", "replace") or "the jail was not ready in time"}
    return verdict(text[1:], number, code) | {"seconds": seconds}


def verdict(text: bytes, number: bytes, code: int | None) -> dict[str, Any]:
    """The outcome by report and exit code (None: still running).

    Keys: `proved` (the last line ran), `exit` (ended early with code 0), `timeout`, `memory`,
    `error`.
    """
    if text == number:
        return {"proved": True}
    if code is None:
        return {"timeout": True}
    try:
        known = json.loads(text)
    except (ValueError, RecursionError):  # a program may have written to the pipe itself
        known = {}
    if isinstance(known, dict) and isinstance(known.get("error"), str):
        flags = {key: known.get(key) is True for key in ("memory", "exit")}
        return {"error": known["error"][: program.MESSAGE_CHARACTERS]} | flags
    if code == 0:
        return {"exit": True, "error": "ended with exit code 0 before its last line"}
    if code == -signal.SIGXCPU:
        return {"timeout": True}
    what = f"killed by signal {-code}" if code < 0 else f"ended with exit code {code}"
    return {"error": f"{what} before its last line"}


def end(pid: int) -> None:
    """Kills the program and whatever it left behind; process 1 takes its namespace along."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)
    deadline = time.monotonic() + SETUP_S
    with contextlib.suppress(ChildProcessError):
        while time.monotonic() < deadline:
            if os.waitpid(-1, os.WNOHANG)[0] == 0:  # orphans of the program are ours to wait for
                for child in _children():
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(child, signal.SIGKILL)
                time.sleep(0.001)


def worker(job: dict[str, Any], report: int, proof: int) -> None:
    """The program's own process: jail, limits, then the program. Never returns."""
    leave = os._exit
    try:
        os.setsid()
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        enter(job)
    except BaseException as error:
        os.write(report, REFUSED + str(error).encode()[:REPORT_BYTES])
        leave(1)
    try:
        os.write(report, READY)
        program.run(job["code"], job["tests"], job["main"], report, proof)
    finally:
        leave(1)


def enter(job: dict[str, Any]) -> None:
    """Raises OSError unless every layer that the job asks for holds."""
    layers = job["layers"]
    with open(os.devnull) as nothing:
        os.dup2(nothing.fileno(), 0)
    os.chdir(job["work"])
    if sys.platform == "linux":
        from nanochat_jax.evals.jail import landlock, libc, namespaces, seccomp

        # Files first, while there are privileges to mount with; then no privileges; then the
        # filter of system calls, last, since it forbids what the other layers are set up with.
        if "namespaces" in layers:
            namespaces.build(job["work"], HOME_BYTES)
            namespaces.drop_root()
        libc.drop_capabilities()
        libc.prctl(libc.PR_SET_PDEATHSIG, signal.SIGKILL)  # a keeper that dies takes it along
        libc.prctl(libc.PR_SET_NO_NEW_PRIVS, 1)
        if "landlock" in layers:
            readable = [*namespaces.libraries(), *namespaces.DEVICES]
            landlock.restrict(readable, [job["work"], "/dev/null"])
    # A limit of processes counts threads, and without namespaces all that the user has elsewhere.
    limit(job["memory_bytes"], job["timeout_s"], "namespaces" in layers or "seccomp" not in layers)
    # The program must not find its jailer's modules, constants or pipes by name.
    for name in [n for n in sys.modules if n.startswith("nanochat_jax")]:
        del sys.modules[name]
    guard.install()
    if "seccomp" in layers:
        seccomp.install()


def limit(memory_bytes: int, timeout_s: float, counted: bool) -> None:
    """Sets the limits of the process, soft and hard alike; of processes where `counted`."""
    # A little more than the clock allows, so that the keeper ends a program first and says why; the
    # kernel does where the keeper cannot.
    cpu_s = int(timeout_s) + 2
    limits = {
        resource.RLIMIT_CPU: cpu_s, resource.RLIMIT_FSIZE: FILE_BYTES,
        resource.RLIMIT_NOFILE: OPEN_FILES, resource.RLIMIT_CORE: 0, resource.RLIMIT_MEMLOCK: 0,
    }  # fmt: skip
    if counted:
        limits[resource.RLIMIT_NPROC] = PROCESSES
    if sys.platform == "linux":  # elsewhere these calls fail
        memory = (resource.RLIMIT_AS, resource.RLIMIT_DATA, resource.RLIMIT_STACK)
        limits |= dict.fromkeys(memory, memory_bytes)
    for which, value in limits.items():
        hard = resource.getrlimit(which)[1]
        value = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(which, (value, value))


def _ended(pid: int) -> int | None:
    """The exit code, negative for a signal; None while it runs. The process stays waited for."""
    if sys.platform == "darwin":  # no waitid that leaves it
        done, status = os.waitpid(pid, os.WNOHANG)
        return os.waitstatus_to_exitcode(status) if done else None
    found = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    if found is None:
        return None
    return found.si_status if found.si_code == os.CLD_EXITED else -found.si_status


def _children() -> list[int]:
    """Whoever has this process as its parent, by Linux's /proc; none where there is no such."""
    found = []
    for name in filter(str.isdigit, os.listdir("/proc") if os.path.isdir("/proc") else []):
        with contextlib.suppress(OSError), open(f"/proc/{name}/stat") as file:
            # "pid (name) state parent ...": the name may hold blanks and parentheses
            if int(file.read().rpartition(")")[2].split()[1]) == os.getpid():
                found.append(int(name))
    return found
