"""Which rows go through the model together: full batches of a few shapes. Pure.

Two ways for a question. `whole`: its rows go through the model as they are, next to those of other
questions. `shared`: what its options have in common is read once, and each option goes on from
there (with four options after ten solved examples that is a quarter of the work). Groups wait until
those of one padded shape fill a batch, across tasks; so all but the last few batches are full, and
few shapes are ever compiled.
"""

import collections
import dataclasses
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from typing import NamedTuple

from nanochat_jax.evals.core.prompts import Example, Row, common_prefix

Key = Hashable

# Padded lengths: of whole or shared parts, and of the options' own ends. Above the last, multiples
# of a quarter of it. Finer steps waste less (attention pays for padding twice over), but each
# length is compiled once.
LENGTHS = (64, 96, 128, 192, 256, 320, 384, 512, 640, 768, 896, 1024, 1280, 1536, 1792, 2048)
ENDS = (16, 32, 64, 128, 256, 512)
# Of every so many positions of a batch one can be scored: logits are wide. Where rows are mostly
# scored (short contexts, long options) one of two.
SPARSE, DENSE = 16, 2


class RowGroup(NamedTuple):
    """Rows of one question that are scored together: `rows[k]` is its row `first + k`.

    `shared` counts the tokens read once for all of them; 0: the group is one whole row.
    """

    key: Key
    first: int
    rows: tuple[Row, ...]
    shared: int = 0

    @property
    def long(self) -> int:
        return self.shared or len(self.rows[0].ids)

    @property
    def end(self) -> int:
        """Tokens of the longest own end; 0 of a whole row."""
        return max(len(row.ids) for row in self.rows) - self.shared if self.shared else 0

    @property
    def scored(self) -> int:
        return sum(row.end - row.start for row in self.rows)


class Shape(NamedTuple):
    """What is compiled, for one device: B rows of P (whole: T) tokens, R ends of C, M scored."""

    rows: int
    long: int
    options: int
    ends: int
    scored: int


class Kind(NamedTuple):
    """Groups of one padded shape; `options`: ends of a shared part."""

    long: int
    ends: int
    options: int
    dense: bool


def groups_of(key: Key, example: Example, least_shared: int, lone: bool = False) -> list[RowGroup]:
    """One group for all rows of a question if they share that many tokens, else one a row.

    `lone`: a lone row counts as sharing all before its first scored token. That saves no work, but
    such rows go in the shapes that questions with options have.
    """
    rows = example.rows
    if len(rows) > 1 or lone:
        # The token that predicts the first scored one is read with the end: its logits are needed,
        # and the shared pass makes none.
        shared = min(common_prefix([row.ids for row in rows]), *(row.start for row in rows)) - 1
        if shared >= least_shared:
            return [RowGroup(key, 0, rows, shared)]
    return [RowGroup(key, k, (row,)) for k, row in enumerate(rows)]


def kind_of(group: RowGroup) -> Kind:
    long = fit(group.long, LENGTHS)
    if group.shared:
        options = 1 << (len(group.rows) - 1).bit_length()  # the power of two at or above
        return Kind(long, fit(group.end, ENDS), options, True)
    return Kind(long, 0, 0, group.scored > long // SPARSE)


def fit(n: int, sizes: Sequence[int]) -> int:
    """The least of `sizes` that holds n."""
    step = sizes[-1] // 4
    return next((size for size in sizes if n <= size), -(-n // step) * step)


def shape_of(kind: Kind, batch_tokens: int) -> Shape:
    """The batch of such groups, about `batch_tokens` a device, with room for one at least."""
    rows = max(1, batch_tokens // (kind.long + kind.options * kind.ends))
    part = DENSE if kind.dense else SPARSE
    if not kind.ends:
        most = kind.long if kind.dense else kind.long // SPARSE  # scored tokens of a group
        return Shape(rows, kind.long, 0, 0, max(most, rows * kind.long // part))
    options = kind.options * rows
    scored = max(kind.options * kind.ends, options * kind.ends // part)
    return Shape(rows, kind.long, options, kind.ends, scored)


@dataclasses.dataclass(frozen=True)
class RowBatch:
    """The groups of each device's share of a forward pass, all shares of one shape."""

    shape: Shape
    shares: list[list[RowGroup]]


def batches(
    windows: Iterable[Iterable[RowGroup]], batch_tokens: int, devices: int = 1,
    kind: Callable[[RowGroup], Kind] = kind_of, planned: Iterable[Kind] = (),
) -> Iterator[RowBatch]:  # fmt: skip
    """All groups, in full batches as soon as there are any; what is left over goes last.

    Args:
        windows: groups as they come; what waits from one to the next is less than a batch a shape.
        batch_tokens: of a batch, on each of the devices.
        kind: which shape a group waits for.
        planned: kinds that will be compiled, whether or not a batch of them is full.
    """
    # Waiting by shape, not in the order of the questions: neighbours differ in length, and a batch
    # of mixed lengths is padded to its longest.
    pools: dict[Kind, list[RowGroup]] = collections.defaultdict(list)
    seen: set[Kind] = set(planned)
    for window in windows:
        for group in window:
            pools[kind(group)].append(group)
        for one, waiting in pools.items():
            batch, left = _packed(one, waiting, batch_tokens, devices)
            while left:  # else the batch may not be full
                seen.add(one)
                yield batch
                waiting[:] = left
                batch, left = _packed(one, waiting, batch_tokens, devices)
    # Leftovers travel together, longest first, so that the last few do not compile shapes of their
    # own.
    left = [group for one in sorted(pools, reverse=True) for group in pools[one]]
    while left:
        one = _known(seen, kind(left[0]))
        batch, left = _packed(one, left, batch_tokens, devices)
        seen.add(one)
        yield batch


def _known(seen: Iterable[Kind], kind: Kind) -> Kind:
    """A kind seen before that holds this one at twice its lengths or less; else itself."""
    fits = lambda big, small: small <= big <= 2 * small
    known = [k for k in seen if all(map(fits, k[:3], kind[:3])) and k.dense >= kind.dense]
    return min(known, default=kind)


def _packed(
    kind: Kind, groups: Sequence[RowGroup], batch_tokens: int, devices: int
) -> tuple[RowBatch, list[RowGroup]]:
    """(a batch of that kind, the groups that did not fit)."""
    shape, shares = shape_of(kind, batch_tokens), []
    for _ in range(devices):
        share, groups = _share(shape, groups)
        shares.append(share)
    return RowBatch(shape, shares), list(groups)


def _share(shape: Shape, groups: Sequence[RowGroup]) -> tuple[list[RowGroup], list[RowGroup]]:
    """(groups that fit on one device, in order, the others)."""
    taken, left, options, scored = [], [], 0, 0
    for group in groups:
        fits = (
            len(taken) < shape.rows
            and group.long <= shape.long
            and scored + group.scored <= shape.scored
            and group.end <= shape.ends
            and (group.shared > 0) == (shape.ends > 0)
            and options + len(group.rows) <= max(shape.options, shape.rows)
        )
        if fits:
            taken.append(group)
            options, scored = options + len(group.rows), scored + group.scored
        else:
            left.append(group)
    return taken, left
