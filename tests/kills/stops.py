"""From SIGTERM to the end of a process, in every phase of a run: how long, and what it leaves.

    python -m tests.kills.stops [--phases compiling save] [--number 2]

Each phase is the real program, asked to stop in the middle of the real work, which is done over and
over until then (data: a read that never returns). What it has saved must be whole, and the run must
go on from there to its end. Ends with 1 where it does not, or where a process takes over 10 s.
"""

import dataclasses
import importlib
import json
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import tyro

from tests.kills import process, world
from tests.kills.__main__ import Bench, damage
from tests.kills.world import Cell

LIMIT_S = 10.0
RECIPE = "current"


class Phase(NamedTuple):
    """What a process is doing when it is asked to stop: a call of `name` in `module`.

    `how`: "again": it is done over and over; "once": it is done, and the run goes on; "never": it
    does not come back. `at`: which call of it.
    """

    module: str
    name: str
    how: str = "again"
    at: int = 1
    flags: tuple[str, ...] = ()
    stage: str = "base"


PHASES = {
    "preparing": Phase("nanochat_jax.train.setup", "prepare"),
    "compiling": Phase("jax.stages", "Lowered.compile", flags=("--depth=8",)),
    "first data": Phase("nanochat_jax.data.shards", "read_row_group", "never"),
    "a step": Phase("nanochat_jax.train.metrics", "MetricsWriter.write", "once", 4,
                    ("--eval-every=-1", "--save-every=-1", "--total-batch-size=49152")),
    "evaluation": Phase("nanochat_jax.train.hooks", "bits_per_byte", at=2),
    "CORE": Phase("nanochat_jax.evals.core", "evaluate", flags=("--core-metric-every=3",)),
    "a sample": Phase("nanochat_jax.evals.samples", "Continuations.__call__",
                      flags=("--sample-every=3",)),
    "rollouts": Phase("nanochat_jax.train.rl", "Sampler.rollouts", at=4, stage="rl"),
    "a save": Phase("nanochat_jax.checkpoint.saver", "Saver._finish", "once", 2),
    "tokenizer": Phase("nanochat_jax.tokenizer", "Tokenizer.train", stage="tokenizer"),
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Stops:
    """Ask training to stop in every phase, and take the time."""

    phases: tuple[str, ...] = tuple(PHASES)
    """which of them"""
    number: int = signal.SIGTERM
    """the signal: 15 or 2"""
    inside: str = ""
    """(of the processes that this starts) the phase, and after `--` the flags of scripts.train"""


class Stopped(NamedTuple):
    """What came of one phase."""

    seconds: float
    code: int
    saved: int  # the last step that lies on disk; 0: none
    fault: str  # what is wrong; nothing if it is empty


def stopped(bench: Bench, name: str, number: int) -> Stopped:
    """Starts a run, stops it in a phase, and lets it go on to its end."""
    phase = PHASES[name]
    loader = {"base": "stream", "rl": "sampled"}.get(phase.stage, "")
    cell = Cell(phase.stage, RECIPE, loader)
    if phase.stage == "tokenizer":
        root = process.fresh(bench.root)
    else:
        root = world.begin(cell, bench.chain(RECIPE), bench.root)
    argv = [*cell.argv(bench.file), *phase.flags]
    child = [sys.executable, "-m", "tests.kills.stops", f"--inside={name}", "--", *argv]
    environment = os.environ | {"NANOCHAT_BASE_DIR": str(root), "JAX_PLATFORMS": "cpu"}
    with bench.log.open("a") as log:
        run = subprocess.Popen(child, stdout=subprocess.PIPE, stderr=log, env=environment)
        for line in run.stdout:
            if line == b"now\n":
                break
        time.sleep(0.5)  # well inside
        run.send_signal(number)
        asked = time.monotonic()
        run.communicate()
    seconds = time.monotonic() - asked
    directory = cell.directory(root) if phase.stage != "tokenizer" else root / "nothing"
    steps = [int(p.name) for p in directory.glob("[0-9]*")] if directory.exists() else []
    fault = broken(bench, phase, argv, directory, steps)
    if run.returncode != 128 + number:
        fault = f"ended with {run.returncode}: {process.tail(bench.log)}"
    return Stopped(seconds, run.returncode, max(steps, default=0), fault)


def broken(
    bench: Bench, phase: Phase, argv: list[str], directory: pathlib.Path, steps: list[int]
) -> str:
    """What is wrong with what a stopped run left; empty if it goes on to its end."""
    if found := damage(directory, max(steps, default=0)):
        return str(found)
    resume = ["--resume"] if steps else []
    ended = process.train(bench.root, [*argv, *resume], bench.log)
    return "" if ended.code == 0 else f"does not go on: {process.tail(bench.log)}"


def inside(name: str, argv: list[str]) -> int:
    """`scripts.train`, which says when it is in the phase."""
    from scripts import train

    phase = PHASES[name]
    if name == "CORE":
        from nanochat_jax.config import paths
        from tests.evals import core_bundles

        core_bundles.three(paths.eval_bundle(paths.base_dir()))
    module = importlib.import_module(phase.module)
    *parents, last = phase.name.split(".")
    owner = getattr(module, parents[0]) if parents else module
    setattr(owner, last, watched(vars(owner)[last], phase))
    return train.main(argv)


def watched(real: Any, phase: Phase) -> Any:
    """The function of a phase, which says when it is called, and stays in it as the phase says."""
    static = isinstance(real, classmethod)
    call: Callable[..., Any] = real.__func__ if static else real
    calls = 0

    def wrapper(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == phase.at:
            print("now", flush=True)
            while phase.how == "never":
                time.sleep(3600)
            while phase.how == "again":
                call(*args, **kwargs)
        return call(*args, **kwargs)

    return classmethod(wrapper) if static else wrapper


def main(cfg: Stops, rest: list[str]) -> int:
    if cfg.inside:
        return inside(cfg.inside, rest)
    os.environ["JAX_PLATFORMS"] = "cpu"
    faults, form = 0, "{:<12} {:>8} {:>6} {:>10}  {}".format
    print(form("phase", "seconds", "code", "last step", ""))
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(pathlib.Path(folder).resolve())
        for name in cfg.phases:
            found = stopped(bench, name, cfg.number)
            late = f"over {LIMIT_S:.0f} s" if found.seconds > LIMIT_S else ""
            said = found.fault or late or "goes on to its end"
            faults += bool(found.fault or late)
            print(form(name, f"{found.seconds:.2f}", found.code, found.saved, said), flush=True)
    print(json.dumps({"phases": len(cfg.phases), "faults": faults}))
    return int(faults > 0)


if __name__ == "__main__":
    at = sys.argv.index("--") if "--" in sys.argv else len(sys.argv)
    sys.exit(main(tyro.cli(Stops, args=sys.argv[1:at]), sys.argv[at + 1 :]))
