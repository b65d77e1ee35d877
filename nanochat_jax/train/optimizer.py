"""nanochat's optimizer as one optax transform: which parameter is in which group, and its update.

The state is a plain dict, each tree of which has the keys of the parameters it belongs to:
`{"step": int32, "adam": {"exp_avg": tree, "exp_avg_sq": tree}, "muon": {"momentum_buffer": tree,
"second_momentum_buffer": tree}}`, the last only where `muon_beta2` is set. Every array lies as its
parameter does (kernels `[in, out]`); the second momentum of a kernel is `[1, out]` or `[in, 1]`.
"""

import re
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax.traverse_util import flatten_dict, unflatten_dict
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from nanochat_jax import sharding
from nanochat_jax.config.optim import OptimConfig
from nanochat_jax.train import muon
from nanochat_jax.train.schedules import Hyper

Flat = dict[tuple[str, ...], Any]


class Group(NamedTuple):
    """AdamW's constants for one parameter; `lr` before the schedule's multiplier."""

    lr: float
    beta1: float
    beta2: float
    weight_decay: float


def is_matrix(path: str) -> bool:
    """Whether Muon takes the parameter of that path: every kernel inside a block.

    Orthogonal updates are for maps from dense vectors to dense vectors. An embedding is a table
    whose rows are looked up one at a time, the output matrix is its counterpart over the
    vocabulary, and scalars have no directions at all: they are left to AdamW.
    """
    return re.fullmatch(r"h_\d+/.*kernel", path) is not None


def adam_group(path: str, optim: OptimConfig, n_embd: int) -> Group:
    """The AdamW constants of a parameter; embeddings' rates scale with width^-1/2.

    Raises:
        ValueError: a path that is in no group.

    Source: nanochat `GPT.setup_optimizer(s)`.
    """
    o, width = optim, (n_embd / 768) ** -0.5
    decay = o.weight_decay if o.weight_decay_on == "embeddings" else 0.0
    lr, out_lr = o.embedding_lr * width, o.unembedding_lr * width
    b1, eb2, sb2 = o.adam_beta1, o.embedding_beta2, o.scalar_beta2
    # Rates were tuned at depth 12. The scalars' own constants are among the few of some 320 runs
    # there that held at depth 20 (the x0 scalars' beta1 of 0.96: -0.0007 bits per byte); the
    # residual scalars need a hundredth of the x0 scalars' rate. Source: nanochat's log, 2026-01.
    groups = {
        r"lm_head/.*": Group(out_lr, b1, o.unembedding_beta2, decay + o.unembedding_weight_decay),
        r"wte/.*": Group(lr, b1, eb2, decay + o.embedding_weight_decay),
        r"value_embeds_\d+/.*": Group(lr * 0.5, b1, eb2, o.value_embed_weight_decay),
        r"resid_lambdas": Group(o.scalar_lr * 0.01, b1, sb2, o.resid_weight_decay),
        r"x0_lambdas": Group(o.scalar_lr, o.x0_beta1, sb2, 0.0),
        r"smear_gate/.*|smear_lambda|backout_lambda": Group(o.smear_lr, b1, sb2, 0.0),
    }
    for pattern, group in groups.items():
        if re.fullmatch(pattern, path):
            return group
    raise ValueError(f"parameter {path!r} is in no optimizer group; add it to {__name__}")


def make_optimizer(
    cfg: Any, optim: OptimConfig, params: Any, *, mesh: Mesh | None = None,
    compute_dtype: Any = jnp.float32, lr_scale: float = 1.0,
) -> optax.GradientTransformationExtraArgs:  # fmt: skip
    """The transform whose `update(grads, state, params, hyper=Hyper(...))` gives weight changes.

    Args:
        cfg: model config; only its `n_embd` is read.
        params: parameters or their shapes; only paths are read.
        mesh: divides Muon's work over its devices.
        compute_dtype: what `muon_dtype="compute"` means.
        lr_scale: on every learning rate (nanochat's `init_lr_frac`).

    Raises:
        ValueError: a parameter in no group.
    """
    paths = ["/".join(keys) for keys in flatten_dict(params)]
    groups = {p: adam_group(p, optim, cfg.n_embd) for p in paths if not is_matrix(p)}
    groups = {p: g._replace(lr=g.lr * lr_scale) for p, g in groups.items()}
    return transform(optim, groups, optim.matrix_lr * lr_scale, mesh, compute_dtype)


def transform(
    optim: OptimConfig, groups: dict[str, Group], matrix_lr: float, mesh: Mesh | None,
    compute_dtype: Any,
) -> optax.GradientTransformationExtraArgs:  # fmt: skip
    """AdamW for the paths in `groups`, Muon at `matrix_lr` for all others; the rest as of
    `make_optimizer`."""
    dtype = jnp.dtype(compute_dtype if optim.muon_dtype == "compute" else optim.muon_dtype)

    def split(tree: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        """The AdamW and the Muon part of a nested dict keyed as the parameters; no key is in
        both."""
        flat = flatten_dict(tree)
        part = lambda want: {k: v for k, v in flat.items() if ("/".join(k) in groups) == want}
        return unflatten_dict(part(True)), unflatten_dict(part(False))

    def init(params: Any) -> dict[str, Any]:
        tables, kernels = split(params)
        zeros = lambda tree: jax.tree.map(jnp.zeros_like, tree)
        matrices = {"momentum_buffer": zeros(kernels)}
        if optim.muon_beta2:
            second = lambda p: jnp.zeros(muon.second_shape(p.shape), p.dtype)
            matrices["second_momentum_buffer"] = jax.tree.map(second, kernels)
        adam = {"exp_avg": zeros(tables), "exp_avg_sq": zeros(tables)}
        return {"step": jnp.zeros((), jnp.int32), "adam": adam, "muon": matrices}

    def update(grads: Any, state: Any, params: Any, *, hyper: Hyper, **_: Any) -> tuple[Any, Any]:
        (g_adam, g_muon), (p_adam, p_muon) = split(clip(grads, optim.grad_clip)), split(params)
        step = state["step"] + 1
        u_adam, adam = adamw(groups, optim.adam_eps, hyper, step, g_adam, state["adam"], p_adam)
        u_muon, matrices = muon_update(
            optim, matrix_lr, dtype, mesh, hyper, g_muon, state["muon"], p_muon
        )
        return {**u_adam, **u_muon}, {"step": step, "adam": adam, "muon": matrices}

    return optax.GradientTransformationExtraArgs(init, update)


def clip(grads: Any, limit: float) -> Any:
    """Gradients of global norm at most `limit` (0: as they are), never scaled up.

    Source: torch `clip_grad_norm_`, whose coefficient is limit / (norm + 1e-6).
    """
    # Off in the recipe of July 2026: no limit from 0.25 to 2 helped, and it cost 2 % of the speed.
    if not limit:
        return grads
    scale = jnp.minimum(1.0, limit / (optax.tree.norm(grads) + 1e-6))
    return jax.tree.map(lambda g: (g * scale).astype(g.dtype), grads)


def adamw(
    groups: dict[str, Group], eps: float, hyper: Hyper, step: jax.Array, grads: Any, state: Any,
    params: Any,
) -> tuple[Any, dict[str, Any]]:  # fmt: skip
    """(updates, state) of AdamW with a group per path; `step` counts from 1.

    Moments have their parameter's dtype; the maths is float32. Updates are float32, so a bfloat16
    parameter is rounded once, when they are added.
    """
    if not groups:
        return {}, state
    count = step.astype(jnp.float32)

    def leaf(keys: Any, g: jax.Array, m: jax.Array, v: jax.Array, p: jax.Array) -> Any:
        group = groups[jax.tree_util.keystr(keys, simple=True, separator="/")]
        g, m32, v32, p32 = (muon.f32(x) for x in (g, m, v, p))
        m32 = m32 + (1.0 - group.beta1) * (g - m32)
        v32 = v32 + (1.0 - group.beta2) * (jnp.square(g) - v32)
        lr = group.lr * hyper.lr_multiplier
        rms = jnp.sqrt(v32 / (1.0 - group.beta2**count)) + eps
        moved = lr / (1.0 - group.beta1**count) * m32 / rms
        return -(moved + lr * group.weight_decay * p32), m32.astype(m.dtype), v32.astype(v.dtype)

    moments = state["exp_avg"], state["exp_avg_sq"]
    out = jax.tree_util.tree_map_with_path(leaf, grads, *moments, params)
    u, m, v = jax.tree.transpose(jax.tree.structure(grads), None, out)
    return u, {"exp_avg": m, "exp_avg_sq": v}


def muon_update(
    optim: OptimConfig, lr: float, dtype: Any, mesh: Mesh | None, hyper: Hyper, grads: Any,
    state: Any, params: Any,
) -> tuple[Any, dict[str, Any]]:  # fmt: skip
    """(updates, state) of Muon over any tree of `[in, out]` kernels, batched over those of one
    shape.

    With a mesh each device orthogonalises its share of every stack: what travels is one all-to-all
    of the momentum, and one of the result back to where the kernels' shares lie.
    """
    # Done by all of 8 devices for themselves it would be an estimated 4 % (depth 20) to 10 % (depth
    # 32) of a step without accumulation; shared out it is below 1 %.
    mix = lambda new, old: (1.0 - hyper.momentum) * new + hyper.momentum * old
    buffers = jax.tree.map(mix, grads, state["momentum_buffer"])
    # Rounded before it travels, and not first thing afterwards: half the bytes, the same numbers.
    near = lambda new, old: muon.rounded(mix(new, old), dtype)
    nesterov = flatten_dict(jax.tree.map(near, grads, buffers))
    seconds = flatten_dict(state.get("second_momentum_buffer", {}))
    flat, updates, new_seconds = flatten_dict(params), {}, {}
    shared, whole = sharding.REST, P()
    for shape, paths in by_shape(flat).items():
        # All matrices of a shape at once: a few large batched products keep a device busy where
        # some hundred small ones would not.
        stack = _placed(_stack(nesterov, paths, mesh), mesh, shared)
        second = _placed(_stack(seconds, paths, mesh), mesh, whole) if seconds else None
        direction, second = orthogonalize(optim, dtype, stack, _placed(second, mesh, shared))
        # Both places are stated: without the first XLA sends the two terms of the last sum, without
        # the second it moves the stack's members one by one.
        home = sharding.spec(mesh, "/".join(paths[0]), shape) if mesh else whole
        direction = _placed(_placed(direction, mesh, shared), mesh, P(None, *home))
        second = _placed(second, mesh, whole)
        for i, path in enumerate(paths):
            updates[path] = _step(direction[i], flat[path], lr * hyper.lr_multiplier, hyper)
            if second is not None:
                new_seconds[path] = second[i]
    new = {"momentum_buffer": buffers}
    if "second_momentum_buffer" in state:
        new["second_momentum_buffer"] = unflatten_dict(new_seconds)
    return unflatten_dict(updates), new


def by_shape(flat: Flat) -> dict[tuple[int, ...], list[tuple[str, ...]]]:
    """Shape -> the paths of that shape, in the order of the tree."""
    groups: dict = {}
    for path, leaf in flat.items():
        groups.setdefault(leaf.shape, []).append(path)
    return groups


def orthogonalize(
    optim: OptimConfig, dtype: Any, x_KIO: jax.Array, second_K: jax.Array | None
) -> tuple[jax.Array, jax.Array | None]:
    """The direction of the step for a stack of Nesterov momenta, and its new second moment."""
    if optim.muon_equalize_rows:
        x_KIO = muon.equalize_rows(x_KIO, dtype)
    iteration = {"newton_schulz": muon.newton_schulz, "polar_express": muon.polar_express}
    x_KIO = iteration[optim.muon](x_KIO, optim.muon_steps, dtype)
    if optim.muon_renormalize:
        x_KIO = muon.renormalize(muon.f32(x_KIO))
    if second_K is not None:
        x_KIO, second_K = muon.reduce_variance(muon.f32(x_KIO), second_K, optim.muon_beta2)
    return x_KIO, second_K


def _step(direction_IO: jax.Array, w_IO: jax.Array, lr: jax.Array, hyper: Hyper) -> jax.Array:
    """The change of one kernel, float32."""
    lr = lr * muon.lr_scale(w_IO.shape)
    direction_IO = muon.f32(direction_IO)
    kept_IO = muon.cautious(direction_IO, muon.f32(w_IO))
    return -(lr * direction_IO + lr * hyper.weight_decay * kept_IO)


def _stack(flat: Flat, paths: list[tuple[str, ...]], mesh: Mesh | None) -> jax.Array:
    """`[K, ...]`, padded with zeros to a multiple of the mesh's devices."""
    stack = jnp.stack([flat[path] for path in paths])
    pad = -len(paths) % (mesh.size if mesh else 1)
    return jnp.pad(stack, [(0, pad)] + [(0, 0)] * (stack.ndim - 1))


def _placed(stack: jax.Array | None, mesh: Mesh | None, where: P) -> jax.Array | None:
    """The stack with its matrices dealt out over the devices, divided each, or whole."""
    if stack is None or mesh is None or mesh.size == 1:
        return stack
    return jax.lax.with_sharding_constraint(stack, NamedSharding(mesh, where))
