"""Kills training again and again, and compares what is left with a run that nobody killed.

    python -m tests.kills [--kills 200] [--only base-current] [--folder DIR]

Every stage, recipe and loader trains once undisturbed; then again, killed by SIGKILL (at a file
operation, halfway through a write, in the loader's thread, at any moment: `deaths.py`) and started
again with `--resume` where a checkpoint lies, until it has come to its end. Weights, optimizer,
loader's position, `meta.json`, `metrics.jsonl` and rollouts must then be the same bytes, times left
out; and after every kill every step on disk must be whole. With `--folder` an interrupted count
goes on where it was. Ends with a table and one line of JSON, and with 1 when a byte was lost.
"""

import dataclasses
import json
import os
import pathlib
import random
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence

import tyro

from nanochat_jax import files
from nanochat_jax.checkpoint import store
from tests.kills import process, world
from tests.kills.deaths import Death
from tests.kills.world import Cell

DEATHS = 4  # of one run at most


@dataclasses.dataclass(frozen=True)
class Kills:
    """Kill training runs and see that nothing is lost."""

    kills: int = 200
    """processes to kill in all, dealt out over the cells"""
    only: tuple[str, ...] = ()
    """cells whose names begin so, such as `base` or `sft-current-bestfit`; none: all"""
    folder: str = ""
    """where runs and counts are kept, to go on later; empty: a temporary one"""
    seed: int = 0
    """of the moments of death"""


@dataclasses.dataclass
class Whole:
    """A run that nobody killed: its checkpoints, what it did and how long it took (the first time
    it compiled; see `Bench.disturbed`)."""

    directory: pathlib.Path
    counts: Counter
    seconds: float


@dataclasses.dataclass
class Found:
    """What came of one run: how it was killed, and what was lost by that."""

    cell: str
    deaths: list[Death] = dataclasses.field(default_factory=list)
    lost: dict[str, int] = dataclasses.field(default_factory=dict)


class Bench:
    """Where runs are made: all in one base directory, whose path is a part of the key under which
    JAX keeps what it has compiled. What is finished moves to a folder of its own."""

    def __init__(self, folder: pathlib.Path):
        self.folder, self.root = folder, folder / "base"
        self.file, self.log = folder / "kills.toml", folder / "log"
        self.file.write_text(world.SETTINGS)
        (folder / "jax_cache").mkdir(exist_ok=True)

    def undisturbed(self, cell: Cell) -> process.Ended:
        """Trains a cell to its end; RuntimeError if it fails."""
        ended = process.train(self.root, cell.argv(self.file), self.log)
        if ended.code:
            raise RuntimeError(f"{cell} ended with {ended.code}:\n{process.tail(self.log)}")
        return ended

    def chain(self, recipe: str) -> pathlib.Path:
        """A base directory in which a recipe's stages are done, each after the other."""
        kept = self.folder / recipe
        if not kept.exists():
            process.fresh(self.root)
            (self.root / "jax_cache").symlink_to(self.folder / "jax_cache")
            for cell in (Cell("tokenizer", recipe, ""), *world.chain(recipe)):
                self.undisturbed(cell)
            self.root.rename(kept)
        return kept

    def whole(self, cell: Cell) -> Whole:
        """The run that a cell's others are compared with."""
        world.begin(cell, self.chain(cell.recipe), self.root)
        ended = self.undisturbed(cell)
        kept = self.folder / "whole" / str(cell)
        shutil.rmtree(kept, ignore_errors=True)
        kept.parent.mkdir(exist_ok=True)
        return Whole(cell.directory(self.root).rename(kept), ended.counts, ended.seconds)

    def disturbed(self, cell: Cell, whole: Whole, most: int, rng: random.Random) -> Found:
        """Trains a cell, killed up to `most` times, and compares."""
        root = world.begin(cell, self.chain(cell.recipe), self.root)
        found, at, directory = Found(str(cell)), 0, cell.directory(root)
        while not found.lost:
            death = draw(rng, whole, at) if len(found.deaths) < most else None
            argv = [*cell.argv(self.file), *(["--resume"] if at else [])]
            ended = process.train(root, argv, self.log, death)
            if ended.code == 0:
                if not found.deaths:
                    whole.seconds = min(whole.seconds, ended.seconds)
                found.lost = process.differences(whole.directory, directory, cell.stage)
                return found
            if ended.code != -9 or death is None:
                print(f"{cell} ended with {ended.code}:\n{process.tail(self.log)}")
                found.lost = {"the run": 1}
                return found
            found.deaths.append(death)
            found.lost = damage(directory, at)
            at = max([0, *store.steps(directory)])
        return found


def draw(rng: random.Random, whole: Whole, at: int) -> Death:
    """A death in what is left of a run at step `at`."""
    left = 1 - at / world.STEPS
    counts = Counter({kind: max(1, int(n * left)) for kind, n in whole.counts.items()})
    return Death.draw(rng, counts, whole.seconds * left)


def damage(directory: pathlib.Path, at: int) -> dict[str, int]:
    """What a kill broke: a step that is not whole; the last one before it, which is gone."""
    broken, steps = {}, store.steps(directory)
    for step in steps:
        try:
            store.verify(store.find(directory, step))
        except (OSError, ValueError) as error:
            print(error)
            broken[f"step {step}"] = 1
    return broken if max([0, *steps]) >= at else broken | {f"step {at}": 1}


def measured(cfg: Kills, folder: pathlib.Path) -> Iterator[Found]:
    """Runs of all cells in turn until so many were killed; those of earlier calls come first."""
    bench, record = Bench(folder), folder / "found.jsonl"
    chosen = [c for c in world.cells() if not cfg.only or str(c).startswith(cfg.only)]
    wholes: dict[Cell, Whole] = {}
    kills = Counter({str(cell): 0 for cell in chosen})
    for line in files.read_json_lines(record):
        found = Found(**line)
        kills[found.cell] += len(found.deaths)
        yield found
    rng = random.Random(f"{cfg.seed} {sum(kills.values())}")
    while (missing := cfg.kills - sum(kills.values())) > 0:
        cell = min(chosen, key=lambda cell: kills[str(cell)])
        whole = wholes[cell] = wholes.get(cell) or bench.whole(cell)
        found = bench.disturbed(cell, whole, min(missing, DEATHS), rng)
        kills[found.cell] += len(found.deaths)
        with record.open("a") as out:
            out.write(json.dumps(dataclasses.asdict(found)) + "\n")
        yield found


def table(runs: Sequence[Found]) -> list[str]:
    """A row a cell: runs, kills, and bytes that differ."""
    form = "{:<6} {:<8} {:<8} {:>5} {:>6} {:>16}".format
    rows = [form("stage", "recipe", "loader", "runs", "kills", "differing bytes")]
    for name in dict.fromkeys(found.cell for found in runs):
        own = [found for found in runs if found.cell == name]
        lost = sum(sum(found.lost.values()) for found in own)
        rows.append(form(*name.split("-"), len(own), sum(len(f.deaths) for f in own), lost))
    return rows


def main(cfg: Kills) -> int:
    os.environ["JAX_PLATFORMS"] = "cpu"
    with tempfile.TemporaryDirectory() as temporary:
        folder = pathlib.Path(cfg.folder or temporary).resolve()
        folder.mkdir(parents=True, exist_ok=True)
        runs = []
        for found in measured(cfg, folder):
            runs.append(found)
            deaths = " ".join(f"{kind}:{at}+{wait_s:.2f}" for kind, at, wait_s in found.deaths)
            print(f"{found.cell}: {deaths} -> {found.lost or 'the same bytes'}", flush=True)
    print(*table(runs), sep="\n")
    kills, lost = sum(len(f.deaths) for f in runs), sum(sum(f.lost.values()) for f in runs)
    print(json.dumps({"kills": kills, "runs": len(runs), "differing_bytes": lost}))
    return int(lost > 0)


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Kills)))
