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


def rename(name: str, pairs: Pairs = KEYS_AND_PATHS, *, back: bool = False) -> str:
    """The other name of a nanochat key or (`back`) of a path; ValueError if no pair has it."""
    for left, right in pairs:
        here, there = (right, left) if back else (left, right)
        if match := _pattern(here).fullmatch(name):
            return there.format(**match.groupdict())
    raise ValueError(f"no parameter of a nanochat model is called {name!r}")


@functools.cache
def _pattern(template: str) -> re.Pattern[str]:
    parts = re.split(r"\{(\w+)\}", template)
    texts, places = map(re.escape, parts[::2]), [f"(?P<{p}>{PLACES[p]})" for p in parts[1::2]]
    return re.compile("".join(t + p for t, p in zip(texts, [*places, ""], strict=True)))


def transposed(path: str, array: np.ndarray) -> np.ndarray:
    """A matrix between the two layouts, as a view; anything else as it is.

    torch's Linear keeps `[out, in]` and multiplies by the transpose, Flax's Dense keeps
    `[in, out]`. Embeddings are `[vocab, width]` in both: rows are looked up, not multiplied.
    """
    return array.T if path.endswith("kernel") else array


def from_nanochat(state: Mapping[str, np.ndarray]) -> Params:
    """Our parameter tree from a state dict of arrays; matrices become views, nothing is copied."""
    paths = {key: rename(key) for key in state}
    return unflatten_dict(
        {tuple(path.split("/")): transposed(path, state[key]) for key, path in paths.items()}
    )


def to_nanochat(params: Params) -> dict[str, np.ndarray]:
    """The state dict of a parameter tree; matrices become views, nothing is copied."""
    flat = {"/".join(keys): np.asarray(value) for keys, value in flatten_dict(params).items()}
    return {rename(path, back=True): transposed(path, array) for path, array in flat.items()}
