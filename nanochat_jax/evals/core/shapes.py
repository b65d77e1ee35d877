"""Few shapes for all questions of CORE: an accelerator's compiler takes longer for one than the
device for its batches. Pure.

The kinds of a sample of the questions are merged, the two that cost least each time, until few are
left; every question then goes in the cheapest of them that holds it.
"""

import collections
import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence

from nanochat_jax.evals.core.batches import (
    ENDS,
    LENGTHS,
    Key,
    Kind,
    RowGroup,
    groups_of,
    kind_of,
)
from nanochat_jax.evals.core.prompts import Example

# Tokens. Shorter beginnings would ask for shapes of short beginnings with long ends.
LEAST_SHARED = 128
SAMPLE = 32  # questions of a task that stand for all of them
# Two more may come from questions that are longer than any of the sample: ten in all of CORE.
PLANNED = 8
# Logits of half of the positions instead of a sixteenth: about a tenth of a d20's whole pass.
DENSE_COST = 1.1


def groups(key: Key, example: Example) -> list[RowGroup]:
    """The groups of a question, of as few kinds as they may have."""
    return groups_of(key, example, LEAST_SHARED, lone=True)


def plan(sample: Iterable[tuple[RowGroup, float]], most: int = PLANNED) -> list[Kind]:
    """At most so many kinds (two at least) that hold all groups of the sample at little cost.

    Args:
        sample: groups, and how many others each stands for.
    """
    weights: dict[Kind, float] = collections.defaultdict(float)
    for group, weight in sample:
        weights[kind_of(group)] += weight
    while len(weights) > max(most, 2):
        pairs = (pair for pair in itertools.combinations(weights, 2) if _alike(*pair))
        one, other = min(pairs, key=lambda pair: _increase(weights, *pair))
        weight = weights.pop(one) + weights.pop(other)
        weights[_merged(one, other)] += weight
    return sorted(weights)


def chooser(planned: Sequence[Kind]) -> Callable[[RowGroup], Kind]:
    """Group -> the cheapest planned kind that holds it; else a coarse kind of its own."""
    by_cost = sorted(planned, key=_cost)

    def choose(group: RowGroup) -> Kind:
        kind = kind_of(group)
        return next((big for big in by_cost if holds(big, kind)), _coarse(kind))

    return choose


def holds(big: Kind, small: Kind) -> bool:
    """Whether a batch of the one kind has room for groups of the other."""
    return _alike(big, small) and all(b >= s for b, s in zip(big, small, strict=True))


def _coarse(kind: Kind) -> Kind:
    """A kind that holds it and most others that were not planned either."""
    long = max(LENGTHS[-1], 1 << (kind.long - 1).bit_length())
    return kind._replace(long=long, ends=ENDS[-1] if kind.ends else 0, dense=True)


def _alike(one: Kind, other: Kind) -> bool:
    """Both whole, or both with a shared beginning."""
    return (one.ends > 0) == (other.ends > 0)


def _merged(one: Kind, other: Kind) -> Kind:
    return Kind(*map(max, one, other))


def _cost(kind: Kind) -> float:
    """Tokens of a group of that kind, padding included."""
    return (kind.long + kind.options * kind.ends) * (DENSE_COST if kind.dense else 1.0)


def _increase(weights: Mapping[Kind, float], one: Kind, other: Kind) -> float:
    """Tokens that merging the two kinds adds."""
    whole = _cost(_merged(one, other))
    return sum(weights[kind] * (whole - _cost(kind)) for kind in (one, other))
