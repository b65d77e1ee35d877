"""What the backward pass keeps of a block, and what it computes again from that."""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
from jax import lax

from nanochat_jax.models import lora

# Names of arrays: what `block_attention` gives its backward pass, and what stands for a product's
# result because the backward pass needs it and not the result itself.
ATTENTION, PRODUCT = "attention", "product"


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


def in_turn(call: Callable[..., Any]) -> Callable[..., Any]:
    """`call(module, x, more, *constants)`, whose gradients are all made before any is used.

    Those of the parameters, x and more. Else XLA's scheduler leaves the gradients of weights, which
    nothing waits for, to the end of the backward pass; and until then it keeps all that they are
    made from, of every layer. With adapters the gradients of all but these are not asked for, and
    are left to be dropped.
    """

    def backward(vjp: Callable[..., Any], cotangent: Any) -> tuple[Any, ...]:
        params, x, more, *constants = vjp(cotangent)
        leaves, tree = jax.tree_util.tree_flatten_with_path(params)
        adapters = [i for i, (keys, _) in enumerate(leaves) if lora.is_adapter(keys)]
        grads = {i: grad for i, (_, grad) in enumerate(leaves)}
        asked = {i: grads[i] for i in adapters or grads}
        # A CPU makes them in turn anyway, and is a sixth slower with the barrier.
        free, together = lambda *grads: grads, lambda *grads: lax.optimization_barrier(grads)
        made, x, more = lax.platform_dependent(asked, x, more, cpu=free, default=together)
        return jax.tree.unflatten(tree, (grads | made).values()), x, more, *constants

    return nn.custom_vjp(call, lambda module, *inputs: nn.vjp(call, module, *inputs), backward)


def _all_but_gathered(primitive: Any, *_: Any, **__: Any) -> bool:
    return primitive.name != "all_gather"


def _attention(primitive: Any, *_: Any, **params: Any) -> bool:
    """Whether it is attention's result or what its backward pass starts from: in no case twice.

    cuDNN's forward is one call that is no product, so JAX's own policies would run it again, and
    to name its output would not keep the sums of its softmax (axlearn, `flash_attention/remat.py`).
    """
    if primitive.name == "name":
        return params["name"] == ATTENTION
    return "dot_product_attention_fwd" in primitive.name


def _products_too(primitive: Any, *inputs: Any, **params: Any) -> bool:
    """Also products with a weight matrix, which have no batch axis; attention's scores have."""
    if primitive.name == "name":
        return True
    if primitive.name == "dot_general":
        (_, _), (batch, _) = params["dimension_numbers"]
        return not batch
    return _attention(primitive, *inputs, **params)
