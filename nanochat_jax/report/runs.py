"""What the runs of a base directory left on disk, as values: all that the page shows."""

import dataclasses
import json
import logging
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from nanochat_jax.checkpoint import store
from nanochat_jax.config.gpt import GPTConfig, param_counts
from nanochat_jax.config.load import build, flatten
from nanochat_jax.config.stages import CHECKPOINT_DIRS, SECTIONS, recipes_of
from nanochat_jax.report import machine, sections, summary
from nanochat_jax.train import metrics

log = logging.getLogger(__name__)

NOT_SETTINGS = ("config", "resume", "resume_from_step", "init", "run", "model_tag", "step")
STEPS_SHOWN, QUESTIONS_SHOWN, SAMPLES_SHOWN, TEXT_SHOWN = 40, 4, 8, 4000


@dataclasses.dataclass(frozen=True)
class Run:
    """The last run of a stage.

    Args:
        meta: that of its last checkpoint; `lines`: its metrics, one dict a step.
        rollouts: of RL, some of them: one dict a question of a step; `rollouts_in_all`: how many
            there are on disk.
    """

    stage: str
    tag: str
    meta: Mapping[str, Any]
    lines: Sequence[Mapping[str, Any]]
    rollouts: Sequence[Mapping[str, Any]] = ()
    rollouts_in_all: int = 0

    @property
    def config(self) -> Mapping[str, Any]:
        return self.meta.get("config") or {}

    @property
    def train_s(self) -> float:
        return float((self.meta.get("loop") or {}).get("train_s") or 0.0)

    @property
    def tokens(self) -> int:
        return int((self.meta.get("loop") or {}).get("tokens") or 0)

    @property
    def steps(self) -> int:
        return int(self.meta.get("step") or max((x.get("step", 0) for x in self.lines), default=0))

    @property
    def parameters(self) -> int | None:
        try:
            return param_counts(GPTConfig(**self.meta["model_config"]))["total"]
        except (KeyError, TypeError, ValueError):  # a checkpoint of another version
            return None

    def differences(self) -> list[tuple[str, Any, Any]]:
        """(setting, the recipe's default, this run's), for those that differ."""
        if self.stage not in SECTIONS or not self.config:
            return []
        recipes = recipes_of(self.stage)
        recipe = self.config.get("recipe", "classic")
        usual = flatten(build(SECTIONS[self.stage], recipes.get(recipe, {})))
        here = {k: v for k, v in self.config.items() if k in usual and k not in NOT_SETTINGS}
        return [(k, usual[k], v) for k, v in here.items() if v != usual[k] and k != "recipe"]


@dataclasses.dataclass(frozen=True)
class Report:
    """Everything: header and sections as markdown, the table of scores, the runs in order."""

    header: str
    sections: Mapping[str, str]
    scores: Mapping[str, Mapping[str, str]]
    runs: Sequence[Run]
    wall_clock_s: float | None
    cost: float | None
    price: float | None
    generated: str


def gather(root: pathlib.Path, header: str) -> Report:
    """Reads what there is; what is missing or damaged is left out and logged."""
    return Report(
        header=header,
        sections={t: sections.read(root, t) for t in sections.ORDER if sections.has(root, t)},
        scores=summary.table(root),
        runs=[run for stage in CHECKPOINT_DIRS if (run := last_run(root, stage))],
        wall_clock_s=summary.wall_clock_s(root, header),
        cost=summary.cost(root, header),
        price=machine.price(header),
        generated=sections.now(),
    )


def last_run(root: pathlib.Path, stage: str) -> Run | None:
    """The run of a stage that wrote its metrics last; None without any."""
    files = list((root / CHECKPOINT_DIRS[stage]).glob("*/metrics.jsonl"))
    files = [path for path in files if not path.parent.name.startswith(".")]
    if not files:
        return None
    directory = max(files, key=lambda path: path.stat().st_mtime).parent
    shown, total = _rollouts(directory / "rollouts.jsonl")
    lines = metrics.read(directory / "metrics.jsonl")
    return Run(stage, directory.name, _meta(directory), lines, shown, total)


def _meta(directory: pathlib.Path) -> Mapping[str, Any]:
    steps = store.steps(directory)
    if not steps:
        return {}
    path = directory / f"{steps[-1]:06d}" / "meta.json"
    try:
        meta = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        log.warning("%s is damaged (%s): left out of the report", path, error)
        return {}
    return meta if isinstance(meta, dict) else {}


def _rollouts(path: pathlib.Path) -> tuple[list[Mapping[str, Any]], int]:
    """(some of the recorded questions, evenly over the steps; how many there are).

    Read line by line: a long run's recorder is larger than memory should hold.
    """
    at: dict[int, list[int]] = {}
    for offset, entry in _entries(path):
        at.setdefault(int(entry.get("step", 0)), []).append(offset)
    steps = sorted(at)
    if len(steps) > STEPS_SHOWN:
        last = len(steps) - 1
        steps = [steps[round(i * last / (STEPS_SHOWN - 1))] for i in range(STEPS_SHOWN)]
    wanted = {offset for step in steps for offset in at[step][:QUESTIONS_SHOWN]}
    shown = [_short(entry) for offset, entry in _entries(path) if offset in wanted]
    return shown, sum(map(len, at.values()))


def _entries(path: pathlib.Path) -> Any:
    """(number of the line, its dict), up to the first that was cut off."""
    if not path.exists():
        return
    with path.open(encoding="utf-8", errors="replace") as file:
        for number, line in enumerate(file):
            try:
                entry = json.loads(line)
            except ValueError:
                log.warning("%s ends in a broken line %d", path, number + 1)
                return
            if isinstance(entry, dict):
                yield number, entry


def _short(entry: Mapping[str, Any]) -> Mapping[str, Any]:
    samples = [s for s in entry.get("samples") or [] if isinstance(s, dict)]
    kept = [{k: v for k, v in s.items() if k not in ("ids", "mask")} for s in samples]
    return {**entry, "samples": kept[:SAMPLES_SHOWN], "samples_in_all": len(samples)}
