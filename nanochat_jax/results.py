"""What stages and evaluations find, as values. Only `report/` turns them into text.

A stage or an evaluation returns a `Section`; the report keeps it as JSON and draws every view of
it (Markdown, HTML, the table of scores) from that.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Literal

Unit = Literal["share", "number"]

# The titles of sections, by stage. A report shows them in this order, what a stage trained before
# what was scored of it. Source: nanochat `nanochat/report.py`.
DATA = "Data"
TRAINING = {
    "tokenizer": "Tokenizer training", "base": "Base model training", "mid": "Midtraining",
    "sft": "Chat SFT", "rl": "Chat RL",
}  # fmt: skip
EVALUATION = {
    "tokenizer": "Tokenizer evaluation", "base": "Base model evaluation",
    "mid": "Chat evaluation mid", "sft": "Chat evaluation sft", "rl": "Chat evaluation rl",
}  # fmt: skip
CONTAMINATION = {stage: f"Contamination {stage}" for stage in ("base", "mid", "sft", "rl")}
ORDER = (
    DATA,
    *(
        found[stage] for stage in TRAINING for found in (TRAINING, EVALUATION, CONTAMINATION)
        if stage in found
    ),
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Score:
    """One score of a model.

    Args:
        unit: a `share` lies in 0 to 1 and is shown in percent; a `number` is shown as it is.
        low, high: the 95 % interval.
        n: problems it was taken over.
        chance: what guessing would give, in the score's own unit.
        also: further shares of the same problems, such as `pass@8`.
        count_shown: text tells n beside the value and not the interval; of few problems the count
            says more than a second decimal.
    """

    name: str
    value: float
    unit: Unit = "number"
    low: float | None = None
    high: float | None = None
    n: int | None = None
    chance: float | None = None
    lower_is_better: bool = False
    also: Mapping[str, float] = dataclasses.field(default_factory=dict)
    count_shown: bool = False

    @property
    def centered(self) -> float:
        """The value on a scale where guessing is 0 and all right is 1."""
        chance = self.chance or 0.0
        return (self.value - chance) / (1.0 - chance)


@dataclasses.dataclass(frozen=True)
class Exchange:
    """A question and what a model answered, tool markers and all.

    Args:
        kind: what it tries; those of a kind are shown together.
        right: None where nobody judged it.
        wanted: the right answer, or what was looked for in it.
    """

    kind: str
    question: str
    reply: str
    right: bool | None = None
    wanted: str = ""


@dataclasses.dataclass(frozen=True)
class Check:
    """What was found when a score was doubted, in one sentence.

    `sound`: whether the score may be taken for what it is called.
    """

    score: str  # its name
    says: str
    sound: bool = True


@dataclasses.dataclass(frozen=True)
class Section:
    """What a stage or an evaluation leaves.

    Args:
        settings, figures: JSON values by name (or numbers of numpy).
        scores: go into the summary of the whole report.
        details: the scores of single tasks, shown in a table of the section.
        texts: Markdown as it is: samples, notes.
        exchanges: what the model answers now, all or some of it.
        checks: the small print of the scores.
        answers: folder of every graded answer, from the base directory on; "": none.
    """

    title: str
    settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    figures: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    scores: Sequence[Score] = ()
    details: Sequence[Score] = ()
    texts: Sequence[str] = ()
    exchanges: Sequence[Exchange] = ()
    checks: Sequence[Check] = ()
    answers: str = ""
