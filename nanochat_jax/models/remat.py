"""What the backward pass keeps of a block, and what it computes again from that."""

from collections.abc import Callable
from typing import Any

import flax.linen as nn

NAME = "attention"  # of what `block_attention` gives its backward pass


def rematerialised(
    block: type[nn.Module], kept: str, gather: Callable[[Any], Any] | None = None
) -> type[nn.Module]:
    """The block as a module whose backward pass keeps less.

    Args:
        kept: "none": all that the backward pass needs, nothing is computed twice; "dots": the
            results of products and attention, so that only norms, rotations and other pointwise
            chains run again; "full": the results of attention alone, a third more products.
        gather: makes the block's parameters whole, from shares; what it gives is never kept.
    """
    if gather is not None:
        whole = lambda tree: {"params": gather(tree["params"])}
        block = nn.map_variables(block, "params", whole)
    if kept == "none" and gather is None:
        return block
    policies = {"none": _all_but_gathered, "dots": _products_too, "full": _attention}
    return nn.remat(block, policy=policies[kept])


def _all_but_gathered(primitive: Any, *_: Any, **__: Any) -> bool:
    return primitive.name != "all_gather"


def _attention(primitive: Any, *_: Any, **params: Any) -> bool:
    """Whether it is attention's result or what its backward pass starts from: in no case twice.

    cuDNN's forward is one call that is no product, so JAX's own policies would run it again, and
    to name its output would not keep the sums of its softmax (axlearn, `flash_attention/remat.py`).
    """
    if primitive.name == "name":
        return params["name"] == NAME
    return "dot_product_attention_fwd" in primitive.name


def _products_too(primitive: Any, *inputs: Any, **params: Any) -> bool:
    """Also products with a weight matrix, which have no batch axis; attention's scores have."""
    if primitive.name == "dot_general":
        (_, _), (batch, _) = params["dimension_numbers"]
        return not batch
    return _attention(primitive, *inputs, **params)
