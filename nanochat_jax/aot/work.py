"""What a kernel has to do: FLOPs by kind of unit, bytes that it reads and writes."""

import math
import re
from typing import NamedTuple

from nanochat_jax.aot.audit import BACKWARD, FORWARD
from nanochat_jax.aot.hlo import Computation, Instruction, Module

# What launches nothing. Loops and calls are walked into, and "-done" only waits.
FREE = {
    "parameter", "constant", "tuple", "get-tuple-element", "bitcast", "after-all", "opt-barrier",
    "optimization-barrier", "partition-id", "replica-id", "add-dependency", "domain",
}  # fmt: skip

CONTROL = {"while", "conditional", "call"}


def kernels_a_pass(module: Module) -> int:
    """Kernels and copies that one pass through the loop with most of them launches.

    Loops inside of it count once, branches all.
    """
    launched = [c for c, i in module.launched() if i.op not in FREE | CONTROL]
    bodies = {b for _, i in module.instructions() if i.op == "while" for b in i.called("body")}
    reached = [module.reachable({body}) for body in bodies]
    return max((sum(c in names for c in launched) for names in reached), default=0)


class Work(NamedTuple):
    """FLOPs of a kernel on tensor cores of `unit` ("products", "float8", "attention", ...), and
    bytes of memory that it moves."""

    unit: str
    flops: float
    nbytes: float


def work(module: Module, computation: Computation, i: Instruction) -> Work:
    """What one launch of an instruction does."""
    moved = traffic(module, computation, i)
    if i.target in (FORWARD, BACKWARD):
        unit = "attention" if i.target == FORWARD else "attention_backward"
        return Work(unit, attention_flops(computation, i), moved)
    products = _products(module, computation, i)
    unit = "float8" if any(narrow for narrow, _ in products) else "products"
    return Work(unit, sum(flops for _, flops in products), moved)


def attention_flops(computation: Computation, i: Instruction) -> float:
    """FLOPs that a causal mask with a window leaves of cuDNN's attention.

    Forward two products, backward five: it computes the scores again.
    """
    B, N, T, S = _ints(i.attributes, r'intermediate_tensor_shape"?:.*?"dimensions":\[([^\]]*)\]')
    H = computation[i.operands[0]].arrays[0].size // (B * N * T)
    length = re.search(r'sliding_window_length"?:"?(\d+)', i.attributes.replace(" ", ""))
    window = int(length[1]) if length and int(length[1]) else S
    causal = "CAUSAL" in i.attributes or "SLIDING" in i.attributes
    pairs = sum(min(t + 1, window) for t in range(T)) if causal else T * S
    return (4 if i.target == FORWARD else 10) * B * N * H * pairs


def traffic(module: Module, computation: Computation, i: Instruction) -> float:
    """Bytes that a kernel reads and writes, if its operands fit into no cache."""
    operands = [computation[name] for name in i.operands if name in computation]
    result = i.nbytes
    if i.op.endswith("-start"):  # the shape of the start repeats the operands
        result -= sum(o.nbytes for o in operands)
    if "output_to_operand_aliasing" in i.attributes:  # a kernel's own change of an operand
        result -= sum(i.arrays[n].nbytes for n in _written_in_place(i))
    called = i.called("calls")
    if "fusion" not in i.op or not called or called[0] not in module.computations:
        return sum(o.nbytes for o in operands) + result
    inside = module.computations[called[0]]
    parameters = [p for p in inside.values() if p.op == "parameter"]
    read = sum(_read(inside, p) for p in parameters)
    return read + _written(inside, result)


def _written_in_place(i: Instruction) -> list[int]:
    pairs = re.search(r"output_to_operand_aliasing=\{(.*?\)(?:, \{\d*\}.*?\))*)\}", i.attributes)
    return [int(n or 0) for n in re.findall(r"\{(\d*)\}: \(", pairs[1])] if pairs else []


def _read(inside: Computation, parameter: Instruction) -> float:
    """Bytes of a fusion's parameter that it looks at: of a slice only the slice."""
    users = _users(inside, parameter.name)
    parts = 0.0
    for user in users:
        first = user.operands[0] in {parameter.name, *_aliases(inside, parameter.name)}
        if user.op in ("slice", "dynamic-slice", "gather") and first:
            parts += user.nbytes
        elif user.op in ("dynamic-update-slice", "scatter") and first:
            continue  # written in place: what lies beside the update is not touched
        else:
            return parameter.nbytes
    return min(parts, parameter.nbytes)


def _written(inside: Computation, result: float) -> float:
    """Bytes of a fusion's result that it writes: of an update in place only the update, of a
    scatter twice, since it adds."""
    changes = {"dynamic-update-slice": (1, 1), "scatter": (2, 2)}
    for i in inside.values():
        if i.op in changes:
            operand, times = changes[i.op]
            update = inside[i.operands[operand]].nbytes
            result += times * update - i.nbytes
    return max(result, 0.0)


def _users(inside: Computation, name: str) -> list[Instruction]:
    names = {name, *_aliases(inside, name)}
    return [i for i in inside.values() if names & set(i.operands) and i.op != "bitcast"]


def _aliases(inside: Computation, name: str) -> set[str]:
    return {i.name for i in inside.values() if i.op == "bitcast" and i.operands == (name,)}


def _products(module: Module, computation: Computation, i: Instruction) -> list[tuple[bool, float]]:
    """(whether in eight bits, FLOPs) of every product of a kernel."""
    if i.op == "dot":
        return [_product(computation, i, _ints(i.attributes, r"lhs_contracting_dims=\{([^}]*)\}"))]
    if "cublas" in i.target:
        dims = _ints(i.attributes, r'lhs_contracting_dimensions":\[([^\]]*)\]')
        return [_product(computation, i, dims)]
    inner = [module.computations[c] for c in i.called("calls") if c in module.computations]
    return [found for c in inner for x in c.values() for found in _products(module, c, x)]


def _product(computation: Computation, i: Instruction, dims: list[int]) -> tuple[bool, float]:
    left, right = (computation[name].arrays[0] for name in i.operands[:2])
    narrow = left.dtype.startswith("f8") and right.dtype.startswith("f8")
    return narrow, 2.0 * i.arrays[0].size * math.prod(left.dims[d] for d in dims)


def _ints(text: str, pattern: str) -> list[int]:
    found = re.search(pattern, text.replace(" ", ""))
    return [int(n) for n in re.findall(r"\d+", found[1])] if found else []
