"""Runs programs that a model wrote, each in a process of its own, and reports how they ended.

What keeps a program in, and what does not: `docs/sandbox.md`. What does not hold on this machine is
logged once and named in each `Result.missing`.
"""

import dataclasses
import functools
import logging
import re
from collections.abc import Sequence
from typing import Any, Literal

from nanochat_jax.evals.jail import launch

log = logging.getLogger(__name__)

LAYERS = ("namespaces", "landlock", "seccomp")
GIVES = {
    "network": {"namespaces", "seccomp"},
    "files": {"namespaces", "landlock"},
    "processes": {"namespaces", "seccomp"},
}
CALL = re.compile(r"^(?P<name>[A-Za-z_]\w*)\(.*\)\s*\Z", re.MULTILINE)

Rules = Literal["classic", "current"]


@dataclasses.dataclass(frozen=True)
class Result:
    """How a program ended."""

    success: bool  # its last line ran, and nothing was raised
    stdout: str = ""  # what it wrote, up to `launch.OUTPUT_BYTES`
    stderr: str = ""
    error: str | None = None  # why it is no success, in one line
    timeout: bool = False
    memory_exceeded: bool = False
    seconds: float = 0.0  # wall clock of the program alone
    missing: tuple[str, ...] = ()  # what could not be kept from it: network, files, processes


def run_python(
    code: str, *, timeout_s: float = 5.0, memory_bytes: int = 256 << 20, rules: Rules = "classic",
    checks: bool = False, layers: Sequence[str] | None = None,
) -> Result:  # fmt: skip
    """Runs a program of the standard library.

    Args:
        timeout_s: wall clock; start-up is not counted.
        memory_bytes: address space of each of its processes (not on macOS).
        rules: `classic`: a program succeeds when its last line has run. `current`: also when it
            ends with exit code 0 before, as `raise SystemExit(0)`, and it is `__main__`.
        checks: its last line calls a function (HumanEval's `check`): from the last definition of
            that function on it is run with builtins as they were before the program.
        layers: which of `LAYERS` to ask for; None: all that the kernel allows.

    Raises:
        ValueError: a limit that is not positive, an unknown rule or layer.
        RuntimeError: the sandbox itself does not work here.
    """
    _check(timeout_s, memory_bytes, rules, layers)
    used = usable_layers() if layers is None else tuple(layers)
    body, tests = split(code) if checks else (code, "")
    job = {
        "code": body, "tests": tests, "main": rules == "current", "timeout_s": timeout_s,
        "memory_bytes": memory_bytes, "layers": used,
    }  # fmt: skip
    status, out, err = launch.start(job)
    if "setup" in status and layers is None:
        log.warning("sandbox: %s", status["setup"])
    return _result(status, out, err, rules, timeout_s, missing(used))


def execute(program: str, **settings: Any) -> bool:
    """Whether a HumanEval program passes its tests; what `tasks.humaneval` calls."""
    return run_python(program, checks=True, **settings).success


@functools.cache
def usable_layers() -> tuple[str, ...]:
    """The layers that hold on this machine, tried once; what is missing is logged.

    Raises:
        RuntimeError: not even an empty program runs.
    """
    if error := try_layers(()).error:
        raise RuntimeError(f"the sandbox runs no program here: {error}")
    # Whether a kernel, a container or a policy allows a layer, only an attempt shows.
    refused = {name: try_layers((name,)).error for name in LAYERS if name != "landlock"}
    if refused["namespaces"]:
        refused["landlock"] = try_layers(("landlock",)).error
    held = tuple(name for name in LAYERS if refused.get(name, "not tried") is None)
    if gaps := missing(held):
        why = "; ".join(f"{name}: {error}" for name, error in refused.items() if error)
        log.warning("sandbox: programs are not kept from %s here (%s)", ", ".join(gaps), why)
    return held


def missing(layers: Sequence[str]) -> tuple[str, ...]:
    """What these layers leave open."""
    return tuple(what for what, by in GIVES.items() if not by & set(layers))


def split(program: str) -> tuple[str, str]:
    """(program, tests): cut before the last top-level definition of what the last line calls.

    Both parts are compiled apart, so the program cannot swallow the tests in an open string.
    Without such a definition all of it is program.
    """
    # The last definition counts: a program may define a `check` of its own, before or inside.
    last = CALL.search(program.rstrip().rpartition("\n")[2])
    found = list(re.finditer(rf"^def {last['name']}\(", program, re.MULTILINE)) if last else []
    cut = found[-1].start() if found else len(program)
    return program[:cut], program[cut:]


def _check(timeout_s: float, memory_bytes: int, rules: str, layers: Sequence[str] | None) -> None:
    if timeout_s <= 0 or memory_bytes <= 0:
        raise ValueError(f"timeout_s={timeout_s}, memory_bytes={memory_bytes}: both must be > 0")
    if rules not in ("classic", "current"):
        raise ValueError(f"rules is {rules!r}; expected classic or current")
    if unknown := set(layers or ()) - set(LAYERS):
        raise ValueError(f"unknown layers {sorted(unknown)}; known: {', '.join(LAYERS)}")


def try_layers(layers: tuple[str, ...]) -> Result:
    """How an empty program ends inside these layers: a success where the kernel allows them."""
    return run_python("", layers=layers)


def _result(
    status: dict[str, Any], out: str, err: str, rules: Rules, timeout_s: float, gaps: Sequence[str]
) -> Result:
    """A `Result` of what the keeper reports; its own failure is a failed program."""
    if "setup" in status:
        return Result(False, out, err, f"the sandbox failed: {status['setup']}")
    # The original of October 2025 counts any SystemExit as a failure, that of July 2026 a clean one
    # as a success.
    early = rules == "current" and status.get("exit") is True
    success = bool(status.get("proved")) or early
    late, memory = bool(status.get("timeout")), bool(status.get("memory"))
    error = f"timed out after {timeout_s:g} s" if late else status.get("error")
    error = f"memory limit exceeded: {error}" if memory else error
    seconds, shown = status.get("seconds", 0.0), None if success else error
    return Result(success, out, err, shown, late, memory, seconds, tuple(gaps))
