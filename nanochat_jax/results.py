"""What stages and evaluations find, as values. Only `report/` turns them into text.

A stage or an evaluation returns a `Section`; the report keeps it as JSON and draws every view of
it (Markdown, HTML, the table of scores) from that.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Literal

Unit = Literal["share", "number"]


@dataclasses.dataclass(frozen=True)
class Score:
    """One score of a model. A `share` lies in 0 to 1 and is shown in percent.

    `low` and `high` bound the 95 % interval; `n` counts the problems; `chance` is what guessing
    would give, in the score's own unit.
    """

    name: str
    value: float
    unit: Unit = "number"
    low: float | None = None
    high: float | None = None
    n: int | None = None
    chance: float | None = None
    lower_is_better: bool = False


@dataclasses.dataclass(frozen=True)
class Section:
    """What a stage or an evaluation leaves: settings, figures, scores, and texts as they are.

    `settings` and `figures` hold JSON values by name; `texts` are Markdown (samples, tables).
    """

    title: str
    settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    figures: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    scores: Sequence[Score] = ()
    texts: Sequence[str] = ()
