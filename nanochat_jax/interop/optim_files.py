"""nanochat's optimizer files and our optimizer state (train/optimizer.py), both ways. Pure.

Two layouts: `pair` (until 29 January 2026, 41bb2ea), a list of AdamW's and Muon's state dicts, and
`single`, one dict whose groups say what they are. Both number their parameters and name none, so
which number is which parameter follows from the model. Several ranks leave a file each.

Source: nanochat `nanochat/{adamw,muon,optim}.py` and `GPT.setup_optimizer(s)`.
"""

import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal

import numpy as np

from nanochat_jax.interop.names import from_nanochat, to_nanochat

Shapes = Mapping[str, tuple[int, ...]]
Layout = Literal["pair", "single"]
Half = tuple[list, dict]  # (groups, state) of AdamW or of Muon
Buffers = dict[str, dict[str, np.ndarray]]
# In the order in which a block's constructor makes them, which is how torch numbers parameters.
IN_BLOCK = ("attn.c_q", "attn.c_k", "attn.c_v", "attn.c_proj", "attn.ve_gate", "mlp.")
# AdamW's groups in their order.
ADAM = (
    ("lm_head.",), ("transformer.wte.",), ("value_embeds.",), ("resid_lambdas",), ("x0_lambdas",),
    ("smear_gate.", "smear_lambda", "backout_lambda"),
)  # fmt: skip

SMALLEST_CUT = 1024  # elements of an AdamW moment that ranks share


class Incomplete(ValueError):
    """The files hold only some ranks' share of the state."""


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
        what = f"not an optimizer file of nanochat ({type(error).__name__}: {error})"
        raise ValueError(what) from None
    trees = lambda buffers: {name: from_nanochat(arrays) for name, arrays in buffers.items()}
    return {"step": np.int32(step), "adam": trees(adam), "muon": trees(muon)}


def write(
    state: Mapping[str, Any], shapes: Shapes, layout: Layout,
    adam: Callable[[str], Mapping[str, Any]], muon: Mapping[str, Any],
) -> Any:  # fmt: skip
    """What nanochat saves on one rank; arrays are `[out, in]` and contiguous.

    `adam(key)` is what the file says of the AdamW group of a key, `muon` of every Muon group.
    """
    single, moments = layout == "single", _by_key(state["adam"])
    # An array for each: torch counts in place, and one that is shared would count for all.
    step = lambda: int(state["step"]) if single else np.array(state["step"], np.float32)
    groups, buffers = [], {}
    for indices, keys in _numbered(adam_groups(shapes)):
        groups.append({**adam(keys[0]), "params": indices})
        buffers |= {i: {"step": step(), **moments[k]} for i, k in zip(indices, keys, strict=True)}
    start = len(buffers) if single else 0
    more_groups, more = _write_muon(_by_key(state["muon"]), shapes, muon, single, start)
    if single:
        return {"state": buffers | more, "param_groups": groups + more_groups}
    halves = ((buffers, groups), (more, more_groups))
    return [{"state": state, "param_groups": groups} for state, groups in halves]


def shares(whole: Mapping[str, Any], ranks: int) -> Iterator[dict[str, Any]]:
    """The files of ranks 0, 1, ... in place of the one of layout `single`.

    Each holds a slice of every AdamW moment but the small ones, and its share of each Muon stack,
    whose last one is filled up with zeros.

    Raises:
        ValueError: the rows of a table do not divide.
    """
    stacked = {group["params"][0] for group in whole["param_groups"] if group["kind"] == "muon"}
    for index, buffers in whole["state"].items():
        for name, array in buffers.items():
            if index not in stacked and _is_cut(array) and len(array) % ranks:
                raise ValueError(
                    f"{name} of parameter {index} has {len(array)} rows, which {ranks} ranks do "
                    "not divide; name another number of them"
                )
    for rank in range(ranks):
        of = lambda index, array, rank=rank: (
            _stack_share(array, ranks, rank) if index in stacked else _slice(array, ranks, rank)
        )
        state = {i: {name: of(i, array) for name, array in buffers.items()}
                 for i, buffers in whole["state"].items()}  # fmt: skip
        yield {"state": state, "param_groups": whole["param_groups"]}


def _is_cut(array: Any) -> bool:
    """Whether ranks share an AdamW moment: smaller ones lie whole on each."""
    return isinstance(array, np.ndarray) and array.size >= SMALLEST_CUT


def _slice(array: Any, ranks: int, rank: int) -> Any:
    return np.split(array, ranks)[rank] if _is_cut(array) else array


def _stack_share(stack: np.ndarray, ranks: int, rank: int) -> np.ndarray:
    size = -(-len(stack) // ranks)
    share = stack[rank * size : (rank + 1) * size]
    return np.pad(share, ((0, size - len(share)), (0, 0), (0, 0)))


def _write_muon(
    momenta: Buffers, shapes: Shapes, numbers: Mapping[str, Any], single: bool, start: int
) -> Half:
    """Groups and state of Muon: a stack for each shape, or a buffer for each matrix."""
    names, groups, state = matrices(shapes), [], {}
    size = lambda key: shapes[key] if single else math.prod(shapes[key])
    # Where groups are of one number of elements, a set of ints as nanochat's: its order is the
    # groups' order, whatever CPython makes of it, and a file in another order would give each
    # matrix another's momentum.
    sizes = sorted({*map(size, names)}) if single else {*map(size, names)}
    for indices, keys in _numbered([[k for k in names if size(k) == s] for s in sizes], start):
        groups.append({**numbers, "params": indices})
        if single:
            buffers = momenta[keys[0]]
            state[indices[0]] = {b: np.stack([momenta[key][b] for key in keys]) for b in buffers}
        else:
            state |= {i: dict(momenta[key]) for i, key in zip(indices, keys, strict=True)}
    return groups, state


def _halves(file: Any) -> tuple[Half, Half]:
    """AdamW's and Muon's, in either layout."""
    if isinstance(file, list | tuple) and len(file) == 2:
        return tuple((half["param_groups"], half["state"]) for half in file)
    if not isinstance(file, Mapping):
        raise TypeError(f"a {type(file).__name__}; expected a dict or a list of two")
    of = lambda muon: [g for g in file["param_groups"] if (g["kind"] == "muon") == muon]
    return (of(False), file["state"]), (of(True), file["state"])


def _read_adam(parts: Sequence[Half], shapes: Shapes) -> tuple[Buffers, int]:
    """Moments by name and key, and the step."""
    names = [key for group in adam_groups(shapes) for key in group]
    indices = [i for group in parts[0][0] for i in group["params"]]
    _same_number("AdamW", indices, names)
    out: Buffers = {"exp_avg": {}, "exp_avg_sq": {}}
    step = 0
    for index, key in zip(indices, names, strict=True):
        states = [state[index] for _, state in parts]
        step = int(np.asarray(states[0]["step"]))
        for buffer, found in out.items():
            found[key] = _joined([s[buffer] for s in states], shapes[key], f"{buffer} of {key}")
    return out, step


def _read_muon(parts: Sequence[Half], shapes: Shapes) -> Buffers:
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
        stack = _whole(first)
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
    shape_of = {key: _shape(shapes[key], buffer) for key in left}
    keys = [key for key in left if shape_of[key] == first.shape]
    if len(keys) != count:
        keys = [key for key in left if math.prod(shape_of[key]) == first.size]
    _same_number("a Muon group", range(count), keys)
    return keys


def _shape(matrix: tuple[int, ...], buffer: str) -> tuple[int, ...]:
    rows, columns = matrix
    if buffer == "momentum_buffer":
        return matrix
    return (rows, 1) if rows >= columns else (1, columns)  # a variance of each row, or column


def _joined(slices: Sequence[np.ndarray], shape: tuple[int, ...], what: str) -> np.ndarray:
    """The whole of an array that ranks hold slices of, along the first axis."""
    whole = slices[0] if slices[0].shape == shape else _whole(slices)
    if whole.shape == shape:
        return whole
    if whole.shape[1:] == shape[1:] and len(whole) < shape[0]:
        raise Incomplete(f"{what}: {len(whole)} of {shape[0]} rows in {len(slices)} file(s)")
    raise ValueError(f"{what} is {tuple(whole.shape)}, the parameter {shape}: another model's file")


def _whole(slices: Sequence[np.ndarray]) -> np.ndarray:
    return np.concatenate(slices) if len(slices) > 1 else slices[0]  # one stays a view of its file


def _same_number(what: str, indices: Any, names: Sequence[str]) -> None:
    if len(indices) != len(names):
        raise ValueError(f"{what} holds {len(indices)} parameters, the model has {len(names)}: "
                         "another model's file")  # fmt: skip


def _by_key(trees: Mapping[str, Any]) -> Buffers:
    """nanochat's key -> buffer -> array."""
    out: Buffers = defaultdict(dict)
    for buffer, tree in trees.items():
        for key, array in to_nanochat(tree).items():
            out[key][buffer] = np.ascontiguousarray(array)
    return out


def _numbered(groups: Sequence[list[str]], start: int = 0) -> Iterator[tuple[list[int], list[str]]]:
    """(numbers, keys) of each group: torch counts through all of them."""
    for group in groups:
        yield list(range(start, start := start + len(group))), group


def _layer(key: str) -> int:
    """The layer number in a key, 0 where there is none."""
    return next((int(part) for part in key.split(".") if part.isdigit()), 0)
