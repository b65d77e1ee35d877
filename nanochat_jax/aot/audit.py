"""What can be wrong with a compiled program and is seen in its HLO."""

import collections
import math
import re
from typing import NamedTuple

import numpy as np

from nanochat_jax.aot.hlo import COLLECTIVES, Computation, Instruction, Module

# A block of device numbers as HLO writes it: its sizes, and the order of its axes once turned.
BLOCK = r"\[([\d,]+)\](?:T\(([\d,]+)\))?"
FORWARD, BACKWARD = "__cudnn$fmhaSoftmax", "__cudnn$fmhaSoftmaxBackward"


class Collective(NamedTuple):
    """One exchange: `sent` bytes that each device sends in each of its `times` a step.

    `group`: numbers of the devices of one of the groups that exchange at once, all alike.
    """

    name: str
    op: str
    dtype: str
    sent: int
    group: tuple[int, ...]
    in_loop: bool = False
    times: int = 1


def rematerialised(module: Module) -> list[str]:
    """What XLA computes a second time because it thinks that memory would not do."""
    return [i.name for _, i in module.launched() if ".remat" in i.name]


def squares(module: Module, tokens: int) -> list[str]:
    """Arrays in memory with two axes of `tokens`: scores of every query with every key."""
    return [
        f"{i.name} {array.dtype}{list(array.dims)}"
        for _, i in module.launched()
        for array in i.arrays
        if array.dims.count(tokens) >= 2
    ]


def wide_logits(module: Module, vocabulary: int, tile: int) -> list[str]:
    """Float32 arrays in memory of the vocabulary by more rows than a tile of the loss has."""
    return [
        f"{i.name} {array.dtype}{list(array.dims)}"
        for _, i in module.launched()
        for array in i.arrays
        if array.dtype == "f32" and vocabulary in array.dims and array.size > tile * vocabulary
    ]


def attention_calls(module: Module) -> tuple[int, int]:
    """cuDNN's attention in the program: (forward, backward) calls."""
    targets = collections.Counter(i.target for _, i in module.launched())
    return targets[FORWARD], targets[BACKWARD]


def float8_products(module: Module) -> int:
    """Products whose operands are both float8."""
    is_f8 = lambda c, name: name in c and c[name].arrays[0].dtype.startswith("f8")
    return sum(
        (i.op == "dot" or "matmul" in i.target)
        and sum(is_f8(module.computations[c], name) for name in i.operands) >= 2
        for c, i in module.instructions()
    )


def largest(module: Module, count: int = 5) -> list[tuple[int, str]]:
    """(bytes, type and sizes) of the largest arrays that kernels write, each shape once."""
    free = ("parameter", "tuple", "get-tuple-element", "bitcast", "while", "conditional")
    found = {
        (array.nbytes, f"{array.dtype}{list(array.dims)}")
        for _, i in module.launched()
        if i.op not in free
        for array in i.arrays
    }
    return sorted(found, reverse=True)[:count]


def collectives(module: Module) -> list[Collective]:
    """Every exchange between devices, in the order of the text; XLA fuses small ones."""
    loops, runs = module.in_loops(), module.runs()
    return [
        collective(module.computations[c], i)._replace(in_loop=c in loops, times=runs[c])
        for c, i in module.instructions()
        if i.op.removesuffix("-start") in COLLECTIVES
    ]


def sent(module: Module) -> int:
    """Bytes that each device sends to others in a run of the program."""
    return sum(c.sent * c.times for c in collectives(module))


def collective(computation: Computation, i: Instruction) -> Collective:
    """What a collective sends, once, by the ring algorithms that NCCL uses.

    Source: nccl-tests, `doc/PERFORMANCE.md`: each of n devices sends (n - 1) / n of the whole
    array to gather, scatter or exchange it, twice that to reduce it everywhere.
    """
    op, group = i.op.removesuffix("-start"), first_group(i.attributes)
    n = len(group)
    arrays = [array for name in i.operands for array in computation[name].arrays]
    whole = sum(array.nbytes for array in arrays) * (n if op == "all-gather" else 1)
    share = {"all-reduce": 2 * (n - 1) / n, "collective-permute": 1.0}.get(op, (n - 1) / n)
    dtypes = "+".join(sorted({array.dtype for array in arrays}))
    return Collective(i.name, op, dtypes, round(whole * share), group)


def first_group(attributes: str) -> tuple[int, ...]:
    """Devices that exchange with each other, from any of the ways in which XLA writes groups."""
    axes = rf"replica_groups=mesh\[([^\]]*)\](?:, device_ids=\({BLOCK}\))? \{{('\w+'(?:,'\w+')*)\}}"
    if found := re.search(axes, attributes):
        sizes = {name: int(size) for name, size in re.findall(r"'(\w+)'=(\d+)", found[1])}
        ids = _block(found[2] or str(math.prod(sizes.values())), found[3])
        chosen = re.findall(r"\w+", found[4])
        first = tuple(slice(None) if name in chosen else 0 for name in sizes)
        return tuple(ids.reshape(list(sizes.values()))[first].ravel().tolist())
    if found := re.search(rf"replica_groups=\[(\d+),\d+\]<={BLOCK}", attributes):
        return tuple(_block(found[2], found[3]).reshape(int(found[1]), -1)[0].tolist())
    if found := re.search(r"replica_groups=\{\{([\d,]+)\}", attributes):
        return tuple(_ints(found[1]))
    if found := re.search(r"source_target_pairs=\{(.*?)\}\}", attributes):
        return tuple(sorted(set(_ints(found[1]))))
    raise ValueError(f"no group of devices in {attributes[:200]!r}")


def _block(sizes: str, order: str | None) -> np.ndarray:
    """The numbers from 0 on, laid out in those sizes, with the axes turned into that order."""
    shape = _ints(sizes)
    return np.arange(math.prod(shape)).reshape(shape).transpose(_ints(order) if order else None)


def _ints(text: str) -> list[int]:
    return [int(n) for n in re.findall(r"\d+", text)]
