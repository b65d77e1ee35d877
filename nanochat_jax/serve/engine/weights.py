"""The weights as serving wants them: cast once, joined, turned or packed, perhaps int8.

On disk and in training they stay as they are. Letters: I inputs and O outputs of a matrix.
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import traverse_util
from jax.scipy.linalg import block_diag

from nanochat_jax.models import lora, on_cpu
from nanochat_jax.models.gpt import Model
from nanochat_jax.serve.engine.kernels import choose_attention, choose_product

# The matrices that every token reads whole. Embeddings give a line each; the gates are tiny.
MATRICES = frozenset("c_q c_k c_v c_qkv c_proj c_fc lm_head".split())
# Those that are read faster as [O, I]. On an H100 at batch 1 c_fc of d20 takes 8.0 us so and 11.6
# as it is, c_proj the other way 13.3 and 10.8. On CPUs in float32, where ours does not run, see
# `models/linear.py`.
TURNED = {("cpu", "float32"): MATRICES, ("gpu", "bfloat16"): frozenset({"c_qkv", "c_fc"})}
LARGEST = 127  # of an int8; -128 stays unused, so that the levels lie evenly around zero


def prepare(model: Model, dtype: Any = None, int8: bool = False) -> Model:
    """The model that computes in `dtype` (None: as it does) with its matrices stored so.

    It attends to its cache by a kernel of ours, where that works.
    """
    computes = jnp.dtype(model.gpt.dtype)
    dtype = jnp.dtype(dtype or computes)
    changes = {} if dtype == computes else {"dtype": dtype}
    if (attention := choose_attention(model.cfg, dtype)) != "xla":
        changes["attention"] = attention
    gpt = model.gpt.clone(**changes) if changes else model.gpt
    return Model(gpt, prepare_params(model.params, dtype, int8))


def prepare_params(params: Any, dtype: Any, int8: bool) -> Any:
    """Floating matrices in `dtype`, those of `MATRICES` in int8 if asked; vectors as they are.

    The model would cast them in every step: the numbers are the same, the bytes read are not. A
    layer's c_q, c_k and c_v become one `c_qkv`, and matrices lie as this backend likes them.
    """
    params = joined(params)
    params = as_int8(params) if int8 else params
    # Vectors are the scalars of layers and the scales of int8: a cast would save nothing and round
    # what multiplies whole channels.
    floats = lambda x: x.ndim > 1 and jnp.issubdtype(x.dtype, jnp.floating)
    params = jax.tree.map(lambda x: jnp.asarray(x, dtype) if floats(x) else jnp.asarray(x), params)
    kind = jax.default_backend(), jnp.dtype(dtype).name
    if choose_product(dtype) == "packed":
        return packed(params)
    return turned(params, TURNED.get(kind, frozenset()))


def joined(params: Any) -> Any:
    """Each layer's `c_q`, `c_k`, `c_v` side by side as `c_qkv`: one product in place of three.

    Of their adapters every B meets its own A alone: it stands in a block of one B of all.
    """
    flat = _flat(params)
    for *layer, _, leaf in [path for path in flat if "c_q" in path]:
        parts = [flat.pop((*layer, name, leaf)) for name in ("c_q", "c_k", "c_v")]
        side_by_side = block_diag(*parts) if leaf == lora.B else jnp.concatenate(parts, axis=-1)
        flat[*layer, "c_qkv", leaf] = side_by_side
    return traverse_util.unflatten_dict(flat) if flat else params


def packed(params: Any) -> Any:
    """The kernels of `MATRICES` as `packed`, for our own product on CPUs."""
    flat = _flat(params)
    for *matrix, leaf in [path for path in flat if path[-1] == "kernel" and path[-2] in MATRICES]:
        flat[*matrix, "packed"] = on_cpu.pack(flat.pop((*matrix, leaf)))
    return traverse_util.unflatten_dict(flat) if flat else params


def turned(params: Any, names: frozenset[str]) -> Any:
    """The kernels of `names` as `turned` [O, I]."""
    flat = _flat(params)
    for *matrix, leaf in [path for path in flat if path[-1] == "kernel" and path[-2] in names]:
        flat[*matrix, "turned"] = flat.pop((*matrix, leaf)).T
    return traverse_util.unflatten_dict(flat) if flat else params


def _flat(params: Any) -> dict[tuple[str, ...], jax.Array]:
    """Path -> leaf; empty for parameters without names."""
    return dict(traverse_util.flatten_dict(params)) if isinstance(params, dict) else {}


def as_int8(params: Any) -> Any:
    """Kernels of `MATRICES` as int8, each with the float32 `scale` of its output channels.

    Rounded to the nearest of 255 levels up to the channel's largest weight: the error of a weight
    is at most half a level. Source: arXiv:2208.07339 (the absolute-maximum scale, per channel).
    """
    flat = dict(traverse_util.flatten_dict(params))
    for path in [p for p in flat if p[-1] == "kernel" and p[-2] in MATRICES]:
        if flat[path].dtype != jnp.int8:
            flat[path], flat[*path[:-1], "scale"] = _rounded(jnp.asarray(flat[path], jnp.float32))
    return traverse_util.unflatten_dict(flat)


@jax.jit
def _rounded(kernel_IO: jax.Array) -> tuple[jax.Array, jax.Array]:
    scale_O = jnp.max(jnp.abs(kernel_IO), axis=0) / LARGEST
    scale_O = jnp.where(scale_O > 0, scale_O, 1.0)  # an empty channel: 0 / 0 otherwise
    return jnp.round(kernel_IO / scale_O[None]).astype(jnp.int8), scale_O


def nbytes(tree: Any) -> int:
    """Bytes of all arrays of `tree`, each counted once however many devices hold it."""
    return sum(leaf.nbytes for leaf in jax.tree.leaves(tree))
