"""LoRA: beside each large matrix W of the blocks two thin ones; x W becomes x W + (x A) B.

W stays as it is; A and B alone are trained and kept. A is drawn, B begins as zeros, so the first
step's model is the base to the bit. In a tree of parameters they are `lora_a` `[I, R]` and `lora_b`
`[R, O]` beside `kernel` `[I, O]`; `Linear` computes with them where they are there.

The usual factor alpha / R on the product is left out: the steps of Muon and AdamW do not depend on
the size of a gradient, so it would be a second learning rate. Source: arXiv:2106.09685, section 4.1
("tuning alpha is roughly the same as tuning the learning rate").

Letters: I inputs and O outputs of a matrix, R the rank.
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax.traverse_util import flatten_dict, unflatten_dict

A, B, ROWS = "lora_a", "lora_b", "lora_rows"
# Attention's and the MLP's matrices, of every recipe. Not the gates, which have a few outputs; nor
# embeddings and output matrix: to adapt those would outweigh all else, and is seldom needed.
TARGETS = frozenset("c_q c_k c_v c_proj c_fc".split())
Path = tuple[str, ...]


def targets(params: Any) -> dict[Path, tuple[int, int]]:
    """Path of each adapted matrix and its `(I, O)`; `params` are arrays or their shapes."""
    kernels = {p: x for p, x in flatten_dict(params).items() if p[-1] == "kernel"}
    return {p[:-1]: x.shape for p, x in kernels.items() if p[-2] in TARGETS}


def check_rank(params: Any, rank: int) -> None:
    """Raises ValueError for a rank beyond what a matrix has, where adapters would only cost."""
    path, shape = min(targets(params).items(), key=lambda found: min(found[1]))
    if rank > min(shape):
        raise ValueError(
            f"--lora-rank is {rank}, but {'/'.join(path)} is {shape[0]} x {shape[1]} and has no "
            f"higher rank than {min(shape)}; type --lora-rank {min(shape)} or less, or leave the "
            "flag out to train all weights"
        )


def init_adapters(params: Any, rank: int, key: jax.Array) -> Any:
    """A tree of fresh adapters for parameters (or their shapes), float32."""
    made, found = {}, targets(params)
    for (path, (I, O)), own in zip(found.items(), jax.random.split(key, len(found)), strict=True):
        # x A then has the size of x, whatever the width.
        made[*path, A] = jax.random.normal(own, (I, rank)) / jnp.sqrt(jnp.float32(I))
        made[*path, B] = jnp.zeros((rank, O))
    return unflatten_dict(made)


def attached(params: Any, adapters: Any) -> Any:
    """The parameters with adapters beside their matrices."""
    return unflatten_dict(flatten_dict(params) | flatten_dict(adapters))


def merged(params: Any, adapters: Any) -> Any:
    """The parameters of an ordinary model that computes the same: W + A B, in W's type."""
    flat, thin = dict(flatten_dict(params)), flatten_dict(adapters)
    for path in targets(params):
        W, low, high = flat[*path, "kernel"], thin[*path, A], thin[*path, B]
        change = jnp.matmul(low, high, precision="highest")
        flat[*path, "kernel"] = (W.astype(jnp.float32) + change).astype(W.dtype)
    return unflatten_dict(flat)


def of_rows(params: Any, adapted_B: jax.Array | None) -> Any:
    """Parameters whose adapters count for the rows with 1 and not for those with 0 (float32); as
    they are where None is said."""
    if adapted_B is None:
        return params
    flat = flatten_dict(params)
    return unflatten_dict(flat | {(*p[:-1], ROWS): adapted_B for p in flat if p[-1] == A})


def beside(params: Any) -> bool:
    """Whether adapters are among the parameters."""
    return isinstance(params, dict) and any(path[-1] == A for path in flatten_dict(params))


def is_adapter(keys: Any) -> bool:
    """Whether a path of `jax.tree_util` leads to A or B of a matrix."""
    return keys[-1].key in (A, B)
