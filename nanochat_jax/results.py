"""What stages and evaluations find, as values. Only `report/` turns them into text.

A stage or an evaluation returns a `Section`; the report keeps it as JSON and draws every view of
it (Markdown, HTML, the table of scores) from that.
"""

import dataclasses
import numbers
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
ORDER = (DATA, *(title for stage in TRAINING for title in (TRAINING[stage], EVALUATION[stage])))


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
class Section:
    """What a stage or an evaluation leaves.

    Args:
        settings, figures: JSON values by name; numbers of numpy are taken for what they are.
        scores: go into the summary of the whole report.
        details: the scores of single tasks, shown in a table of the section.
        texts: Markdown as it is: samples, notes.
    """

    title: str
    settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    figures: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    scores: Sequence[Score] = ()
    details: Sequence[Score] = ()
    texts: Sequence[str] = ()

    def to_json(self) -> dict[str, Any]:
        """The section as JSON values; what is not known of a score is left out."""
        whole = _plain(dataclasses.asdict(self))
        for key in ("scores", "details"):
            whole[key] = [{k: v for k, v in s.items() if v is not None} for s in whole[key]]
        return whole

    @classmethod
    def from_json(cls, value: Any) -> "Section":
        """The section that `to_json` gave.

        Raises:
            ValueError: the value is of another form; the message names the part.
        """
        whole = _object(value, "a section")
        scores = {
            key: [_score(x, f"{key}[{i}]") for i, x in enumerate(_list(whole, key))]
            for key in ("scores", "details")
        }
        texts = _list(whole, "texts")
        if not isinstance(whole.get("title"), str) or not all(isinstance(t, str) for t in texts):
            raise ValueError("its title and texts must be texts")
        tables = {key: _object(whole.get(key, {}), key) for key in ("settings", "figures")}
        return cls(whole["title"], **tables, **scores, texts=texts)


# What JSON may hold for each field of a score; all but the first two may be missing.
KINDS: dict[str, type | tuple[type, ...]] = {
    "name": str, "value": (int, float), "unit": str, "low": (int, float), "high": (int, float),
    "n": int, "chance": (int, float), "lower_is_better": bool, "also": dict, "count_shown": bool,
}  # fmt: skip


def _plain(value: Any) -> Any:
    """JSON values only, so that a report never fails on a number of numpy at a run's end."""
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    if value is None or isinstance(value, bool | str):
        return value
    if isinstance(value, numbers.Integral):
        return int(value)
    return float(value) if isinstance(value, numbers.Real) else str(value)


def _object(value: Any, what: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError(f"{what} must be an object, not {type(value).__name__}")
    return value


def _list(whole: dict[str, Any], key: str) -> list[Any]:
    if not isinstance(whole.get(key, []), list):
        raise ValueError(f"{key} must be a list")
    return whole.get(key, [])


def _score(value: Any, where: str) -> Score:
    known = {k: v for k, v in _object(value, where).items() if k in KINDS}
    for key, kinds in KINDS.items():
        if key in known and not isinstance(known[key], kinds):
            raise ValueError(f"{where}.{key} is {known[key]!r}")
    if not {"name", "value"} <= known.keys():
        raise ValueError(f"{where} needs a name and a value")
    return Score(**known)
