"""nanochat's state-dict keys and our parameter tree: a rename and a transpose, both ways. Pure."""

import re
from collections.abc import Mapping
from typing import Any

import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

Params = dict[str, Any]

# torch key -> our path; linear weights are [out, in] there and kernels [in, out] here.
RULES: tuple[tuple[str, str], ...] = (
    (r"transformer\.wte\.weight", "wte/embedding"),
    (r"transformer\.h\.(\d+)\.(attn|mlp)\.(\w+)\.weight", r"h_\1/\2/\3/kernel"),
    (r"lm_head\.weight", "lm_head/kernel"),
    (r"value_embeds\.(\d+)\.weight", r"value_embeds_\1/embedding"),
    (r"smear_gate\.weight", "smear_gate/kernel"),
    (r"(resid_lambdas|x0_lambdas|smear_lambda|backout_lambda)", r"\1"),
)
BACK: tuple[tuple[str, str], ...] = (
    (r"wte/embedding", "transformer.wte.weight"),
    (r"h_(\d+)/(attn|mlp)/(\w+)/kernel", r"transformer.h.\1.\2.\3.weight"),
    (r"lm_head/kernel", "lm_head.weight"),
    (r"value_embeds_(\d+)/embedding", r"value_embeds.\1.weight"),
    (r"smear_gate/kernel", "smear_gate.weight"),
    (r"(resid_lambdas|x0_lambdas|smear_lambda|backout_lambda)", r"\1"),
)


def path_of(key: str) -> str:
    """Our path of a nanochat key; raises ValueError for one that no era of nanochat has."""
    return _renamed(key, RULES, "parameter of nanochat")


def key_of(path: str) -> str:
    """The nanochat key of one of our paths; raises ValueError for one that is not ours."""
    return _renamed(path, BACK, "parameter path")


def _renamed(name: str, rules: tuple[tuple[str, str], ...], kind: str) -> str:
    for pattern, new in rules:
        match = re.fullmatch(pattern, name)
        if match:
            return match.expand(new)
    raise ValueError(f"unknown {kind}: {name!r}")


def from_nanochat(state: Mapping[str, np.ndarray]) -> Params:
    """Our parameter tree from a state dict of arrays; matrices become views, nothing is copied."""
    flat = {}
    for key, value in state.items():
        path = path_of(key.removeprefix("_orig_mod."))
        flat[tuple(path.split("/"))] = value.T if path.endswith("/kernel") else value
    return unflatten_dict(flat)


def to_nanochat(params: Params) -> dict[str, np.ndarray]:
    """The state dict of a parameter tree; matrices become views, nothing is copied."""
    out = {}
    for keys, value in flatten_dict(params).items():
        path = "/".join(keys)
        array = np.asarray(value)
        out[key_of(path)] = array.T if path.endswith("/kernel") else array
    return out
