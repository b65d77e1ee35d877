"""A stage of training in a process that may die, and what the one that started it sees."""

import multiprocessing
import os
import pathlib
import shutil
import time
from collections import Counter
from collections.abc import Sequence
from multiprocessing.connection import Connection, wait
from typing import NamedTuple

from tests.kills.deaths import Death, mortal

# Forked from a process that has imported everything and started nothing: a start then costs what
# JAX needs to begin, not three seconds of imports.
FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload([
    "nanochat_jax.pipeline", "nanochat_jax.report", "nanochat_jax.train.stages", "scripts.train",
    "tensorboard.summary.writer.event_file_writer", "tests.kills.compare",
])  # fmt: skip


class Ended(NamedTuple):
    """How a process ended: `code` as of `subprocess` (-9: killed). `counts` of one that lived."""

    code: int
    counts: Counter
    seconds: float


def train(
    root: pathlib.Path, argv: Sequence[str], log: pathlib.Path, death: Death | None = None
) -> Ended:
    """`scripts.train` in the base directory `root`, killed as `death` says; its output in `log`."""
    here, there = multiprocessing.Pipe(duplex=False)
    process = FORKS.Process(target=_stage, args=(root, list(argv), log, death, there), daemon=True)
    begun, counts = time.monotonic(), Counter()
    process.start()
    there.close()
    while process.sentinel not in (ready := wait([process.sentinel, here])) or here.poll():
        if here in ready:
            try:
                said = here.recv()
            except EOFError:  # it has closed the pipe, and is about to end
                process.join()
                break
            if isinstance(said, Counter):
                counts = said
            else:  # how long it has to live
                process.join(said)
                process.kill()
    process.join()
    return Ended(process.exitcode, counts, time.monotonic() - begun)


def _stage(
    root: pathlib.Path, argv: list[str], log: pathlib.Path, death: Death | None, parent: Connection
) -> None:
    from scripts import train as program

    _redirect(log)
    os.environ["NANOCHAT_BASE_DIR"] = str(root)
    clockwork = mortal(root, death, parent)
    code = program.main(argv)
    parent.send(clockwork.counts)
    raise SystemExit(code)


def differences(whole: pathlib.Path, parts: pathlib.Path, stage: str) -> dict[str, int]:
    """`compare.differences` in a process of its own: whoever forks must not have started JAX."""
    here, there = multiprocessing.Pipe(duplex=False)
    process = FORKS.Process(target=_compare, args=(whole, parts, stage, there), daemon=True)
    process.start()
    there.close()
    try:
        return here.recv()
    except EOFError:
        raise RuntimeError(f"{whole} and {parts} could not be compared: see above") from None
    finally:
        process.join()


def _compare(whole: pathlib.Path, parts: pathlib.Path, stage: str, parent: Connection) -> None:
    from tests.kills import compare

    os.environ["JAX_PLATFORMS"] = "cpu"
    parent.send(compare.differences(whole, parts, stage))


def _redirect(log: pathlib.Path) -> None:
    number = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(number, 1)
    os.dup2(number, 2)


def tail(log: pathlib.Path, lines: int = 12) -> str:
    """The end of a log, for who reads of a failure."""
    return "\n".join(log.read_text(errors="replace").splitlines()[-lines:])


def fresh(folder: pathlib.Path) -> pathlib.Path:
    """An empty folder of that name."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder
