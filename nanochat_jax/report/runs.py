"""What the runs of a base directory left on disk, as values: all that the page shows."""

import dataclasses
import json
import logging
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from nanochat_jax.checkpoint import store
from nanochat_jax.config.gpt import GPTConfig, param_counts
from nanochat_jax.config.paths import CHECKPOINTS
from nanochat_jax.config.resolve import SECTIONS
from nanochat_jax.config.stages import recipes_of
from nanochat_jax.config.values import build, flatten
from nanochat_jax.report import machine, sections, summary
from nanochat_jax.train import metrics, rollout_log

log = logging.getLogger(__name__)

NOT_SETTINGS = ("config", "resume", "resume_from_step", "init", "run", "model_tag", "step")
STEPS_SHOWN, QUESTIONS_SHOWN, SAMPLES_SHOWN = 40, 4, 8

Question = list[Mapping[str, Any]]  # rollouts of one question, as `train/rollout_log.py` has them


@dataclasses.dataclass(frozen=True)
class Run:
    """The last run of a stage.

    Args:
        meta: that of its last checkpoint; `lines`: its metrics, one dict a step.
        rollouts: of RL, step -> some of its questions; `recorded_steps`: how many steps there are.
    """

    stage: str
    tag: str
    meta: Mapping[str, Any]
    lines: Sequence[Mapping[str, Any]]
    rollouts: Mapping[int, Sequence[Question]] = dataclasses.field(default_factory=dict)
    recorded_steps: int = 0

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
            return param_counts(GPTConfig.of(self.meta["model_config"]))["total"]
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
        runs=[run for stage in CHECKPOINTS if (run := last_run(root, stage))],
        wall_clock_s=summary.wall_clock_s(root, header),
        cost=summary.cost(root, header),
        price=machine.price(header),
        generated=sections.now(),
    )


def last_run(root: pathlib.Path, stage: str) -> Run | None:
    """The run of a stage that wrote its metrics last; None without any."""
    files = list((root / CHECKPOINTS[stage]).glob("*/metrics.jsonl"))
    files = [path for path in files if not path.parent.name.startswith(".")]
    if not files:
        return None
    directory = max(files, key=lambda path: path.stat().st_mtime).parent
    shown, total = _rollouts(directory)
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


def _rollouts(directory: pathlib.Path) -> tuple[dict[int, list[Question]], int]:
    """(step -> its first questions with their first rollouts, of steps evenly chosen; all steps).

    A long run's recorder is larger than a page should be.
    """
    steps = rollout_log.steps(directory)
    chosen = steps
    if len(steps) > STEPS_SHOWN:
        apart = (len(steps) - 1) / (STEPS_SHOWN - 1)
        chosen = [steps[round(i * apart)] for i in range(STEPS_SHOWN)]
    return {step: found for step in chosen if (found := _questions(directory, step))}, len(steps)


def _questions(directory: pathlib.Path, step: int) -> list[Question]:
    """The first questions of a step, each with its first rollouts."""
    questions: dict[Any, Question] = {}
    try:
        entries = [e for e in rollout_log.read(directory, step) if isinstance(e, dict)]
    except ValueError as error:
        log.warning("the rollouts of step %d in %s are damaged (%s)", step, directory, error)
        return []
    for entry in entries:
        questions.setdefault((entry.get("task"), entry.get("example")), []).append(entry)
    return [rollouts[:SAMPLES_SHOWN] for rollouts in list(questions.values())[:QUESTIONS_SHOWN]]
