"""nanochat's state-dict keys and our parameter tree: a rename and a transpose, both ways. Pure."""

import functools
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

Params = dict[str, Any]
Pairs = Sequence[tuple[str, str]]

# What a placeholder of a name stands for.
PLACES = {"i": r"\d+", "part": "attn|mlp", "name": r"\w+", "qkv": "[qkv]"}

# One table, read from either side: an inverse kept by hand goes wrong one key at a time.
KEYS_AND_PATHS: Pairs = (
    ("transformer.wte.weight", "wte/embedding"),
    ("transformer.h.{i}.{part}.{name}.weight", "h_{i}/{part}/{name}/kernel"),
    ("lm_head.weight", "lm_head/kernel"),
    ("value_embeds.{i}.weight", "value_embeds_{i}/embedding"),
    ("smear_gate.weight", "smear_gate/kernel"),
    *((name, name) for name in ("resid_lambdas", "x0_lambdas", "smear_lambda", "backout_lambda")),
)


def rename(name: str, pairs: Pairs, *, back: bool = False) -> str | None:
    """The other name of `name`: right of left, `back` left of right; None if no pair has it."""
    for left, right in pairs:
        here, there = (right, left) if back else (left, right)
        if match := _pattern(here).fullmatch(name):
            return there.format(**match.groupdict())
    return None


@functools.cache
def _pattern(template: str) -> re.Pattern[str]:
    parts = re.split(r"\{(\w+)\}", template)
    texts, places = map(re.escape, parts[::2]), [f"(?P<{p}>{PLACES[p]})" for p in parts[1::2]]
    return re.compile("".join(t + p for t, p in zip(texts, [*places, ""], strict=True)))


def path_of(key: str) -> str:
    """Our path of a nanochat key; raises ValueError for one that no era of nanochat has."""
    path = rename(key, KEYS_AND_PATHS)
    if path is None:
        raise ValueError(f"unknown parameter of nanochat: {key!r}")
    return path


def key_of(path: str) -> str:
    """The nanochat key of one of our paths; raises ValueError for one that is not ours."""
    key = rename(path, KEYS_AND_PATHS, back=True)
    if key is None:
        raise ValueError(f"unknown parameter path: {path!r}")
    return key


def transposed(path: str, array: np.ndarray) -> np.ndarray:
    """A matrix between the two layouts, as a view; anything else as it is.

    torch's Linear keeps `[out, in]` and multiplies by the transpose, Flax's Dense keeps
    `[in, out]`. Embeddings are `[vocab, width]` in both: rows are looked up, not multiplied.
    """
    return array.T if path.endswith("kernel") else array


def from_nanochat(state: Mapping[str, np.ndarray]) -> Params:
    """Our parameter tree from a state dict of arrays; matrices become views, nothing is copied."""
    flat = {}
    for key, value in state.items():
        path = path_of(key)
        flat[tuple(path.split("/"))] = transposed(path, value)
    return unflatten_dict(flat)


def to_nanochat(params: Params) -> dict[str, np.ndarray]:
    """The state dict of a parameter tree; matrices become views, nothing is copied."""
    flat = {"/".join(keys): np.asarray(value) for keys, value in flatten_dict(params).items()}
    return {key_of(path): transposed(path, array) for path, array in flat.items()}
