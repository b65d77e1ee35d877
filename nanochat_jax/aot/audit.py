"""What can be wrong with a compiled program and is seen in its HLO."""

import collections
import re
from typing import NamedTuple

from nanochat_jax.aot.hlo import COLLECTIVES, Computation, Instruction, Module

FORWARD, BACKWARD = "__cudnn$fmhaSoftmax", "__cudnn$fmhaSoftmaxBackward"


class Collective(NamedTuple):
    """One exchange: `sent` bytes that each device sends in each of its `times` a step; `devices`
    take part."""

    name: str
    op: str
    dtype: str
    sent: int
    devices: int
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
    op, n = i.op.removesuffix("-start"), group_size(i.attributes)
    arrays = [array for name in i.operands for array in computation[name].arrays]
    whole = sum(array.nbytes for array in arrays) * (n if op == "all-gather" else 1)
    share = {"all-reduce": 2 * (n - 1) / n, "collective-permute": 1.0}.get(op, (n - 1) / n)
    dtypes = "+".join(sorted({array.dtype for array in arrays}))
    return Collective(i.name, op, dtypes, round(whole * share), n)


def group_size(attributes: str) -> int:
    """Devices that exchange with each other, from any of the ways in which XLA writes groups."""
    if named := re.search(r"replica_groups=mesh\[([^\]]*)\] \{([^}]*)\}", attributes):
        sizes = dict(re.findall(r"'(\w+)'=(\d+)", named[1]))
        size = 1
        for axis in re.findall(r"'(\w+)'", named[2]):
            size *= int(sizes[axis])
        return size
    if tiled := re.search(r"replica_groups=\[\d+,(\d+)\]<=", attributes):
        return int(tiled[1])
    if listed := re.search(r"replica_groups=\{\{([\d,]*)\}", attributes):
        return len(listed[1].split(","))
    if pairs := re.search(r"source_target_pairs=\{(.*?)\}\}", attributes):
        return pairs[1].count("{")
    raise ValueError(f"no group of devices in {attributes[:200]!r}")
