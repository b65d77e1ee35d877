"""What a base directory holds of a chain of stages, as values: all that the views show."""

import dataclasses
import datetime
import json
import logging
import pathlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from nanochat_jax.checkpoint import store
from nanochat_jax.config.gpt import GPTConfig, param_counts
from nanochat_jax.config.paths import CHECKPOINTS
from nanochat_jax.config.resolve import SECTIONS
from nanochat_jax.config.stages import recipes_of
from nanochat_jax.config.values import build, flatten
from nanochat_jax.report import stored
from nanochat_jax.report.machine import Machine
from nanochat_jax.report.stored import Stored
from nanochat_jax.results import CONTAMINATION, DATA, EVALUATION, Check, Score, Section
from nanochat_jax.train import metrics, rollout_log

log = logging.getLogger(__name__)

NOT_SETTINGS = ("config", "resume", "resume_from_step", "init", "run", "model_tag", "step")
# The stages that have a model to score, in the order of the table's columns.
SCORED = ("base", "mid", "sft", "rl")
NAMES = {"base": "Base", "mid": "Midtraining", "sft": "Finetuning", "rl": "Reinforcement learning"}
FIRST, LAST = ("CORE", "val bpb", "train bpb"), ("mean of probes", "ChatCORE metric")
UNCOUNTED = (DATA, *CONTAMINATION.values())  # what no chain waits for
STEPS_SHOWN, QUESTIONS_SHOWN, SAMPLES_SHOWN = 40, 4, 8

# The rollouts of one question, as `train/rollout_log.py` has them.
RolloutGroup = list[Mapping[str, Any]]


@dataclasses.dataclass(frozen=True)
class StageRun:
    """The last run of a stage; `rollouts` of RL: step -> some of its questions."""

    stage: str
    tag: str
    meta: Mapping[str, Any]  # that of its last checkpoint
    lines: Sequence[Mapping[str, Any]]  # its metrics, one dict a step
    rollouts: Mapping[int, Sequence[RolloutGroup]] = dataclasses.field(default_factory=dict)
    recorded_steps: int = 0  # of which `rollouts` holds some

    @property
    def name(self) -> str:
        return NAMES.get(self.stage, self.stage)

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
class ReportCard:
    """Everything: machine, sections by title, scores by metric and stage, the runs in order."""

    machine: Machine
    sections: Mapping[str, Stored]
    scores: Mapping[str, Mapping[str, Score]]
    runs: Sequence[StageRun]
    generated: datetime.datetime

    @property
    def checks(self) -> list[tuple[str, Check]]:
        """(stage, what was found when one of its scores was doubted)."""
        return [(stage, check) for stage in SCORED for check in self._checks(stage)]

    def _checks(self, stage: str) -> Iterable[Check]:
        scored, searched = (
            found.section if (found := self.sections.get(titles[stage])) else Section("")
            for titles in (EVALUATION, CONTAMINATION)
        )
        # What was searched for another model of this stage says nothing of these scores.
        same = not scored.figures or scored.figures.items() <= searched.figures.items()
        return [*scored.checks, *(searched.checks if same else ())]

    @property
    def wall_clock_s(self) -> float | None:
        """Seconds of all stages and evaluations but RL's, as the original counts.

        Where some do not say what they took: from the beginning to the last section.
        """
        # RL is left out because the chain's own length should not depend on an optional stage.
        counted = {k: s for k, s in self.sections.items() if " rl" not in k.lower()}
        took = [s.took_s for title, s in counted.items() if title not in UNCOUNTED]
        if took and None not in took:
            return sum(took)  # who scores a model again next day has not trained for a day
        ends = [s.written for s in counted.values()]
        return max(0.0, (max(ends) - self.machine.started).total_seconds()) if ends else None

    @property
    def cost(self) -> float | None:
        """Dollars of the wall clock; None where time or price is unknown."""
        seconds, price = self.wall_clock_s, self.machine.dollars_per_hour
        return None if seconds is None or price is None else seconds / 3600 * price


def gather(root: pathlib.Path) -> ReportCard:
    """Reads what there is; what is missing or damaged is left out and logged."""
    found = stored.read(root)
    return ReportCard(
        machine=stored.machine_of(root),
        sections=found,
        scores=_score_table(found),
        runs=[run for stage in CHECKPOINTS if (run := last_run(root, stage))],
        generated=stored.now(),
    )


def _score_table(sections: Mapping[str, Stored]) -> dict[str, dict[str, Score]]:
    """Metric -> stage -> score: CORE and bits per byte first, the means last."""
    table: dict[str, dict[str, Score]] = {}
    for stage in SCORED:
        if found := sections.get(EVALUATION[stage]):
            for score in found.section.scores:
                table.setdefault(score.name, {})[stage] = score
    return {name: table[name] for name in sorted(table, key=_rank)}


def _rank(name: str) -> tuple[int, str]:
    stem = name.split(" (")[0]  # CORE (21 of 22 tasks)
    return (FIRST.index(stem) if stem in FIRST else 9 if stem in LAST else 5, name)


def last_run(root: pathlib.Path, stage: str) -> StageRun | None:
    """The run of a stage that wrote its metrics last; None without any."""
    # By time, not by name: which of several tags belongs to this report, only that tells.
    files = list((root / CHECKPOINTS[stage]).glob("*/metrics.jsonl"))
    files = [path for path in files if not path.parent.name.startswith(".")]
    if not files:
        return None
    directory = max(files, key=lambda path: path.stat().st_mtime).parent
    shown, total = _rollouts(directory)
    lines = metrics.read(directory / "metrics.jsonl")
    return StageRun(stage, directory.name, _meta(directory), lines, shown, total)


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


def _rollouts(directory: pathlib.Path) -> tuple[dict[int, list[RolloutGroup]], int]:
    """(step -> its first questions with their first rollouts, of steps evenly chosen; all steps).

    A long run's recorder is larger than a page should be.
    """
    steps = rollout_log.steps(directory)
    chosen = steps
    if len(steps) > STEPS_SHOWN:
        apart = (len(steps) - 1) / (STEPS_SHOWN - 1)
        chosen = [steps[round(i * apart)] for i in range(STEPS_SHOWN)]
    return {step: found for step in chosen if (found := _questions(directory, step))}, len(steps)


def _questions(directory: pathlib.Path, step: int) -> list[RolloutGroup]:
    """The first questions of a step, each with its first rollouts."""
    questions: dict[Any, RolloutGroup] = {}
    try:
        entries = [e for e in rollout_log.read(directory, step) if isinstance(e, dict)]
    except ValueError as error:
        log.warning("the rollouts of step %d in %s are damaged (%s)", step, directory, error)
        return []
    for entry in entries:
        questions.setdefault((entry.get("task"), entry.get("example")), []).append(entry)
    return [rollouts[:SAMPLES_SHOWN] for rollouts in list(questions.values())[:QUESTIONS_SHOWN]]
