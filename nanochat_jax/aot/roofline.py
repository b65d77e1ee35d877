"""How long a compiled program takes, kernel by kernel: no less than its FLOPs or its bytes need.

A kernel takes the longer of FLOPs / rate and bytes / rate, and a little to start (the roofline of
Williams, Waterman and Patterson, CACM 52(4), 2009). Exchanges between devices run beside the
kernels that XLA's schedule has between their start and their end, one exchange at a time; what is
left of them then is waited for. That kernels and exchanges slow each other down is not counted.
"""

import collections
import dataclasses
import re
from collections.abc import Sequence
from typing import NamedTuple

from nanochat_jax.aot.audit import collective
from nanochat_jax.aot.cards import Card
from nanochat_jax.aot.hlo import COLLECTIVES, Instruction, Module
from nanochat_jax.aot.rates import Rates
from nanochat_jax.aot.target import PER_NODE
from nanochat_jax.aot.work import FREE, Work, work


class Launch(NamedTuple):
    """A kernel or an exchange with all its runs: seconds of one, and what bounds it."""

    instruction: Instruction
    bound: str  # products, float8, attention, attention_backward, memory, start, exchange
    seconds: float
    times: float
    work: Work

    @property
    def total(self) -> float:
        return self.seconds * self.times


class Kind(NamedTuple):
    """Launches that do the same in different layers."""

    name: str
    bound: str
    seconds: float
    launches: float
    share: float


@dataclasses.dataclass(frozen=True)
class Estimate:
    """A program's `seconds` on every device; `waiting`: those in which only exchanges run."""

    seconds: float
    waiting: float
    launches: Sequence[Launch]

    def seconds_by_bound(self) -> dict[str, float]:
        """Seconds of kernels by what bounds them, and of exchanges, hidden ones too."""
        found: dict[str, float] = collections.defaultdict(float)
        for launch in self.launches:
            found[launch.bound] += launch.total
        return dict(sorted(found.items(), key=lambda item: -item[1]))

    def largest(self, count: int = 5) -> list[Kind]:
        """The kinds of kernels that take most, with their share of the whole."""
        kinds = collections.defaultdict(list)
        for launch in self.launches:
            kinds[_kind(launch.instruction), launch.bound].append(launch)
        total = lambda group: sum(launch.total for launch in group)
        ranked = sorted(kinds.items(), key=lambda item: -total(item[1]))[:count]
        return [
            Kind(*key, total(group), sum(x.times for x in group), total(group) / self.seconds)
            for key, group in ranked
        ]


def estimate(module: Module, card: Card, rates: Rates | None = None, *, trips: int = 1) -> Estimate:
    """The time of a program; loops whose length depends on data run `trips` times."""
    timeline = _Timeline(module, card, rates or Rates(), trips)
    seconds, waiting = timeline.run(module.entry, 1.0)
    return Estimate(seconds, waiting, timeline.launches)


class _Timeline:
    """Walks a schedule with two clocks: one of the kernels, one of the exchanges."""

    def __init__(self, module: Module, card: Card, rates: Rates, trips: int):
        self.module, self.card, self.rates, self.trips = module, card, rates, trips
        self.launches: list[Launch] = []

    def run(self, name: str, times: float) -> tuple[float, float]:
        """(seconds, those of waiting) of one run of a computation that runs so many times."""
        now = sent = waiting = 0.0
        under_way: dict[str, float] = {}
        for i in self.module.computations[name].values():
            if inner := self._inside(i):
                count = (i.trips or self.trips) if i.op == "while" else 1
                spans = [self.run(c, times * count) for c in inner]
                seconds, waited = max(spans)  # of the branches of a condition, the longest
                now, waiting = now + count * seconds, waiting + count * waited
            elif i.op.endswith("-done"):
                end = under_way.pop(i.operands[0], now)
                now, waiting = max(now, end), waiting + max(0.0, end - now)
            elif exchanged := self._exchanged(name, i):
                sent = max(now, sent) + self._exchange(*exchanged, times)
                if i.op.endswith("-start"):
                    under_way[i.name] = sent
                else:
                    now, waiting = sent, waiting + sent - now
            elif i.op not in FREE:
                now += self._kernel(name, i, times)
        return now, waiting

    def _inside(self, i: Instruction) -> list[str]:
        """Computations that an instruction runs one after the other with the others' kernels."""
        kinds = {
            "while": ("body",), "call": ("to_apply",), "async-start": ("calls",),
            "call-start": ("to_apply", "calls"),
            "conditional": ("branch_computations", "true_computation", "false_computation"),
        }  # fmt: skip
        return i.called(*kinds[i.op]) if i.op in kinds else []

    def _exchanged(self, name: str, i: Instruction) -> tuple[str, Instruction] | None:
        """(its computation, the exchange) that an instruction is or, as a fusion, holds."""
        if i.op.removesuffix("-start") in COLLECTIVES:
            return name, i
        inside = i.called("calls") if "fusion" in i.op else []
        found = [
            self._exchanged(c, x) for c in inside for x in self.module.computations[c].values()
        ]
        return next(filter(None, found), None)

    def _kernel(self, name: str, i: Instruction, times: float) -> float:
        done = work(self.module, self.module.computations[name], i)
        rates, start = self.rates, self.rates.kernel_us / 1e6
        peak = self.card.flops * (2 if done.unit == "float8" else 1)
        computing = done.flops / (peak * getattr(rates, done.unit))
        moving = done.nbytes / (self.card.bandwidth * rates.memory)
        bound = done.unit if computing > moving else "memory"
        seconds = start + max(computing, moving)
        bound = "start" if seconds < 2 * start else bound
        self.launches.append(Launch(i, bound, seconds, times, done))
        return seconds

    def _exchange(self, name: str, i: Instruction, times: float) -> float:
        c = collective(self.module.computations[name], i)
        seconds = self.rates.exchange_us / 1e6 + c.sent / self._link(c.op, c.group)
        self.launches.append(Launch(i, "exchange", seconds, times, Work("", 0.0, c.sent)))
        return seconds

    def _link(self, op: str, group: Sequence[int]) -> float:
        """Bytes/s that a device sends in an exchange of a group."""
        inside = self.card.link * self.rates.link
        in_node = collections.Counter(device // PER_NODE for device in group)
        if len(in_node) == 1:
            return inside
        # NCCL lays as many rings as a node has adapters of the group's cards, and each ring leaves
        # a node once: together they carry what a card sends. Not so where all speak with all.
        outside = self.rates.between_nodes * self.rates.network
        return outside if op == "all-to-all" else min(inside, min(in_node.values()) * outside)


def _kind(i: Instruction) -> str:
    """What a kernel is, the same in every layer: the path of its operation, and its result."""
    path = re.sub(r"jit\([^/]*\)/|shard_map/|while/|body/|h_\d+/|eval_jaxpr/", "", i.op_name)
    name = path or re.sub(r"[.\d]+$", "", i.name)
    array = max(i.arrays, key=lambda a: a.nbytes, default=None)
    return f"{name} {array.dtype}{list(array.dims)}" if array else name
