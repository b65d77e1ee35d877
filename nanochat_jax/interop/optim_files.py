"""nanochat's optimizer files and our optimizer state, both ways. Pure: trees of numpy arrays.

Two layouts: `pair` (until 29 January 2026, 41bb2ea), a list of AdamW's and Muon's state dicts, and
`single`, one dict whose groups say what they are. Both number their parameters and name none, so
which number is which parameter follows from the model. A run on several ranks leaves a file per
rank, each with its slices; they are put together here. Ours: `{"step", "adam", "muon"}`, see
train/optimizer.py.

Source: nanochat `nanochat/{adamw,muon,optim}.py` and `GPT.setup_optimizer(s)`.
"""

import dataclasses
import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal

import numpy as np

from nanochat_jax.interop.names import from_nanochat, to_nanochat

Shapes = Mapping[str, tuple[int, ...]]
Layout = Literal["pair", "single"]
# In the order in which a block's constructor makes them, which is how torch numbers parameters.
IN_BLOCK = ("attn.c_q", "attn.c_k", "attn.c_v", "attn.c_proj", "attn.ve_gate", "mlp.")
# AdamW's groups in their order.
ADAM = (
    ("lm_head.",), ("transformer.wte.",), ("value_embeds.",), ("resid_lambdas",), ("x0_lambdas",),
    ("smear_gate.", "smear_lambda", "backout_lambda"),
)  # fmt: skip


class Incomplete(ValueError):
    """The files hold only some ranks' share of the state."""


@dataclasses.dataclass(frozen=True)
class GroupNumbers:
    """The numbers that a group carries in a file; `adam(key)` gives an AdamW group's."""

    adam: Callable[[str], Mapping[str, Any]]
    muon: Mapping[str, Any]


def adam_groups(shapes: Shapes) -> list[list[str]]:
    """AdamW's parameters by group, as they are numbered."""
    found = [[k for start in starts for k in sorted(shapes, key=_layer) if k.startswith(start)]
             for starts in ADAM]  # fmt: skip
    return [group for group in found if group]


def matrices(shapes: Shapes) -> list[str]:
    """Muon's parameters in the order of the model's modules."""
    inside = lambda key: next(i for i, start in enumerate(IN_BLOCK) if f".{start}" in key)
    named = [key for key in shapes if key.startswith("transformer.h.")]
    return sorted(named, key=lambda key: (_layer(key), inside(key), key))


def read(files: Sequence[Any], shapes: Shapes) -> dict[str, Any]:
    """Our state from the loaded files of ranks 0, 1, ...; float arrays keep their types.

    Raises:
        Incomplete: a slice is missing that another rank has.
        ValueError: not an optimizer file of nanochat, or one of another model.
    """
    try:
        parts = [_halves(file) for file in files]
        adam, step = _read_adam([a for a, _ in parts], shapes)
        muon = _read_muon([m for _, m in parts], shapes)
    except (KeyError, TypeError, IndexError, AttributeError) as error:
        raise ValueError(
            f"not an optimizer file of nanochat ({type(error).__name__}: {error})"
        ) from None
    trees = lambda buffers: {name: from_nanochat(arrays) for name, arrays in buffers.items()}
    return {"step": np.int32(step), "adam": trees(adam), "muon": trees(muon)}


def write(state: Mapping[str, Any], shapes: Shapes, layout: Layout, numbers: GroupNumbers) -> Any:
    """What nanochat saves on one rank; arrays are `[out, in]` and contiguous."""
    adam, muon = _by_key(state["adam"]), _by_key(state["muon"])
    step = int(state["step"])
    if layout == "pair":
        return [_adam_file(adam, shapes, step, numbers), _muon_file(muon, shapes, numbers)]
    return _single_file(adam, muon, shapes, step, numbers)


def _halves(file: Any) -> tuple[tuple[list, dict], tuple[list, dict]]:
    """(groups, state) of AdamW and of Muon, in either layout."""
    if isinstance(file, list | tuple) and len(file) == 2:
        return tuple((half["param_groups"], half["state"]) for half in file)
    if not isinstance(file, Mapping):
        raise TypeError(f"a {type(file).__name__}; expected a dict or a list of two")
    of = lambda muon: [g for g in file["param_groups"] if (g["kind"] == "muon") == muon]
    return (of(False), file["state"]), (of(True), file["state"])


def _read_adam(
    parts: Sequence[tuple[list, dict]], shapes: Shapes
) -> tuple[dict[str, dict[str, np.ndarray]], int]:
    """Moments by name and key, and the step."""
    names = [key for group in adam_groups(shapes) for key in group]
    indices = [i for group in parts[0][0] for i in group["params"]]
    _same_number("AdamW", indices, names)
    out: dict[str, dict[str, np.ndarray]] = {"exp_avg": {}, "exp_avg_sq": {}}
    step = 0
    for index, key in zip(indices, names, strict=True):
        states = [state[index] for _, state in parts]
        step = int(np.asarray(states[0]["step"]))
        for buffer, found in out.items():
            found[key] = _joined([s[buffer] for s in states], shapes[key], f"{buffer} of {key}")
    return out, step


def _read_muon(
    parts: Sequence[tuple[list, dict]], shapes: Shapes
) -> dict[str, dict[str, np.ndarray]]:
    """Momenta by name and key, from a buffer per matrix or a stack per group."""
    left, out = matrices(shapes), {}
    _same_number("Muon", [i for group in parts[0][0] for i in group["params"]], left)
    for group in parts[0][0]:
        indices = group["params"]
        states = [{i: state[i] for i in indices if state.get(i)} for _, state in parts]
        for buffer in sorted({name for s in states for one in s.values() for name in one}):
            arrays = list(_buffers(states, indices, buffer))
            keys = _members(arrays[0], left, shapes, len(indices), buffer)
            for key, array in zip(keys, arrays, strict=True):
                out.setdefault(buffer, {})[key] = array
    for buffer, found in out.items():
        if len(found) != len(left):
            raise Incomplete(f"{buffer} of {len(left) - len(found)} matrices is in no file")
    return out


def _buffers(states: Sequence[dict], indices: Sequence[int], buffer: str) -> Iterator[np.ndarray]:
    """One array per matrix of a group, whichever rank has it."""
    # The single optimizer stacks a group's matrices and leaves the stack with the group's first
    # parameter; ranks hold equal shares of it, the last one padded with zeros.
    first = [s[indices[0]][buffer] for s in states if indices[0] in s and buffer in s[indices[0]]]
    if first and first[0].ndim == 3:
        stack = np.concatenate(first) if len(first) > 1 else first[0]
        if len(stack) < len(indices):
            raise Incomplete(f"{buffer}: {len(stack)} of {len(indices)} matrices of a group")
        yield from stack[: len(indices)]
        return
    for index in indices:
        array = next((s[index][buffer] for s in states if index in s), None)
        if array is None:
            raise Incomplete(f"{buffer} of matrix {index} is in no file")
        yield array


def _members(
    first: np.ndarray, left: list[str], shapes: Shapes, count: int, buffer: str
) -> list[str]:
    """The matrices of a group: those of one shape, else (one rank, pair layout) of one size."""
    shape_of = dict(shapes)
    if buffer != "momentum_buffer":
        shape_of = {key: _second_shape(shapes[key]) for key in left}
    keys = [key for key in left if shape_of[key] == first.shape]
    if len(keys) != count:
        keys = [key for key in left if math.prod(shape_of[key]) == first.size]
    _same_number("a Muon group", range(count), keys)
    return keys


def _second_shape(shape: tuple[int, ...]) -> tuple[int, ...]:
    rows, columns = shape  # Muon's second moment: a variance of each row, or of each column
    return (rows, 1) if rows >= columns else (1, columns)


def _joined(slices: Sequence[np.ndarray], shape: tuple[int, ...], what: str) -> np.ndarray:
    """The whole of an array that ranks hold slices of, along the first axis."""
    if tuple(slices[0].shape) == shape:
        return slices[0]
    whole = np.concatenate(slices) if len(slices) > 1 else slices[0]
    if tuple(whole.shape) == shape:
        return whole
    if whole.shape[1:] == shape[1:] and len(whole) < shape[0]:
        raise Incomplete(f"{what}: {len(whole)} of {shape[0]} rows in {len(slices)} file(s)")
    raise ValueError(f"{what} is {tuple(whole.shape)}, the parameter {shape}: another model's file")


def _same_number(what: str, indices: Any, names: Sequence[str]) -> None:
    if len(indices) != len(names):
        raise ValueError(
            f"{what} holds {len(indices)} parameters, the model has {len(names)}: "
            "another model's file"
        )


def _by_key(trees: Mapping[str, Any]) -> dict[str, dict[str, np.ndarray]]:
    """nanochat's key -> buffer -> array."""
    out: dict[str, dict[str, np.ndarray]] = defaultdict(dict)
    for buffer, tree in trees.items():
        for key, array in to_nanochat(tree).items():
            out[key][buffer] = np.ascontiguousarray(array)
    return out


# torch's AdamW takes all its settings from a file that it loads, these too.
TORCH_ADAMW = dict(
    amsgrad=False, maximize=False, foreach=None, capturable=False, differentiable=False, fused=True,
    decoupled_weight_decay=True,
)  # fmt: skip


def _adam_file(adam: Mapping, shapes: Shapes, step: int, numbers: GroupNumbers) -> dict[str, Any]:
    """The state dict of torch's fused AdamW."""
    groups, state = [], {}
    for indices, members in _numbered(adam_groups(shapes)):
        group = dict(numbers.adam(members[0]))
        initial = group.pop("initial_lr")
        groups.append({**group, **TORCH_ADAMW, "initial_lr": initial, "params": indices})
        for index, key in zip(indices, members, strict=True):
            state[index] = {"step": np.array(step, np.float32), **adam[key]}
    return {"state": state, "param_groups": groups}


def _muon_file(muon: Mapping, shapes: Shapes, numbers: GroupNumbers) -> dict[str, Any]:
    """The state dict of the separate Muon on one rank: groups by the number of elements."""
    size = lambda key: math.prod(shapes[key])
    names = matrices(shapes)
    # A set of ints, as nanochat's: its order is the groups' order, whatever CPython makes of it,
    # and a file in another order would give each matrix another's momentum.
    members = [[key for key in names if size(key) == s] for s in {size(key) for key in names}]
    groups, state = [], {}
    for indices, keys in _numbered(members):
        groups.append({**numbers.muon, "params": indices})
        state |= {i: dict(muon[key]) for i, key in zip(indices, keys, strict=True)}
    return {"state": state, "param_groups": groups}


def _single_file(
    adam: Mapping, muon: Mapping, shapes: Shapes, step: int, numbers: GroupNumbers
) -> dict[str, Any]:
    """The state dict of the combined optimizer: Muon's buffers stacked per shape."""
    groups, state, names, tables = [], {}, matrices(shapes), adam_groups(shapes)
    for indices, members in _numbered(tables):
        groups.append({"kind": "adamw", **numbers.adam(members[0]), "params": indices})
        state |= {i: {"step": step, **adam[k]} for i, k in zip(indices, members, strict=True)}
    stacks = [[k for k in names if shapes[k] == s] for s in sorted({shapes[k] for k in names})]
    for indices, members in _numbered(stacks, start=sum(map(len, tables))):
        groups.append({"kind": "muon", **numbers.muon, "params": indices})
        buffers = muon[members[0]]
        state[indices[0]] = {b: np.stack([muon[key][b] for key in members]) for b in buffers}
    return {"state": state, "param_groups": groups}


def _numbered(groups: Sequence[list[str]], start: int = 0) -> Iterator[tuple[list[int], list[str]]]:
    """(numbers, keys) of each group: torch counts through all of them."""
    for group in groups:
        yield list(range(start, start := start + len(group))), group


def _layer(key: str) -> int:
    """The layer number in a key, 0 where there is none."""
    return next((int(part) for part in key.split(".") if part.isdigit()), 0)
