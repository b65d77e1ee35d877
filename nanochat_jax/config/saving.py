"""When a run saves and which of its steps it keeps: the readers of `--save-every` and `--keep`."""

import dataclasses
import re
from collections.abc import Mapping, Sequence

SECONDS = {"s": 1, "m": 60, "h": 3600}
ALL = "all"


@dataclasses.dataclass(frozen=True)
class Cadence:
    """Every so many steps, or every so many seconds; neither: only at the end."""

    steps: int | None = None
    seconds: float | None = None

    @classmethod
    def of(cls, value: int | str) -> "Cadence":
        """From `500`, `15m`, `90s`, `2h` or `-1`.

        Raises:
            ValueError: anything else.
        """
        text = str(value).strip()
        if text == "-1":
            return cls()
        if text.isdecimal() and int(text) > 0:
            return cls(steps=int(text))
        if (found := re.fullmatch(r"(\d+(?:\.\d+)?)([smh])", text)) and float(found[1]) > 0:
            return cls(seconds=float(found[1]) * SECONDS[found[2]])
        raise ValueError(
            f"save_every is {value!r}; set it to a time (15m, 90s, 2h), to a number of steps, or "
            "to -1 for only at the end"
        )

    def due(self, step: int, seconds: float) -> bool:
        """Whether a run that has done `step` steps saves, `seconds` after it last did."""
        if self.steps is not None:
            return step > 0 and step % self.steps == 0
        return self.seconds is not None and step > 0 and seconds >= self.seconds


@dataclasses.dataclass(frozen=True)
class Keep:
    """The last so many steps, the so many best, and for good the first at or after each multiple
    of so many; 0: none for that reason. All 0: every step."""

    last: int = 0
    best: int = 0
    every: int = 0

    @classmethod
    def of(cls, text: str) -> "Keep":
        """From `last=3,best=1,every=1000` (any of them) or `all`.

        Raises:
            ValueError: anything else.
        """
        if text.strip() == ALL:
            return cls()
        pairs = [part.partition("=") for part in text.replace(" ", "").split(",")]
        counts = {name: int(n) for name, _, n in pairs if n.isdecimal() and int(n) > 0}
        names = [field.name for field in dataclasses.fields(cls)]
        if len(counts) != len(pairs) or not counts.keys() <= set(names):
            raise ValueError(
                f"keep is {text!r}; expected any of last, best and every with a number above 0, "
                f"such as last=3,best=1,every=1000, or {ALL}"
            )
        return cls(**counts)

    def kept(self, steps: Sequence[int], best_first: Sequence[int] = ()) -> set[int]:
        """Those of `steps` (ascending) that stay; `best_first`: those with a score."""
        if self == Keep():
            return set(steps)
        # The newest always: a run goes on from it.
        stay = {*steps[-max(1, self.last) :], *best_first[: self.best]}
        if self.every:
            firsts: dict[int, int] = {}
            for step in steps:
                firsts.setdefault(step // self.every, step)
            stay |= {step for multiple, step in firsts.items() if multiple > 0}
        return stay


def best_first(scores: Mapping[int, Mapping[str, float]]) -> list[int]:
    """Steps by their validation score, the best first: bits per byte, in RL pass@1.

    Of equal ones the later; those without a score are left out.
    """
    for name, sign in (("val/bpb", 1), ("val/pass@1", -1)):
        if found := {s: sign * m[name] for s, m in scores.items() if m.get(name) is not None}:
            return sorted(found, key=lambda step: (found[step], -step))
    return []
