"""One training step, pure: `TrainState, Batch -> TrainState, metrics`.

Each device takes the gradient of its own rows, over all micro-batches, and gets that part of the
sum whose parameters and moments it keeps; `train/exchange.py` says what travels for that, and when.
"""

from functools import partial
from typing import Any, Literal

import flax.struct
import jax
import jax.numpy as jnp
import optax
from jax import lax
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from nanochat_jax.models import lora
from nanochat_jax.models.loss import weighted_loss
from nanochat_jax.sharding import AXES, specs
from nanochat_jax.train.exchange import Exchange
from nanochat_jax.train.schedules import Schedule


@flax.struct.dataclass
class TrainState:
    """All that a step changes. `step` (int32) counts the steps done, `bad` (int32) those of them
    whose loss or gradient was not finite since this process began.

    `frozen`: weights that stay, beside which `params` are adapters; None: `params` are the weights.
    """

    step: jax.Array
    params: Any
    opt_state: Any
    bad: jax.Array
    frozen: Any = None

    @classmethod
    def create(
        cls, params: Any, tx: optax.GradientTransformation, frozen: Any = None
    ) -> "TrainState":
        none = jnp.zeros((), jnp.int32)
        return cls(none, params, tx.init(params), none, frozen)


@flax.struct.dataclass
class Batch:
    """Rows of one optimizer step: `A` gradient accumulations of `R` rows of `T` tokens.

    `progress` is the loader's, 0 to 1. `weights_ART`, if given, is what each token's loss counts;
    the default makes the loss a mean over micro-batches of their means. Targets -1 never count.
    """

    inputs_ART: jax.Array
    targets_ART: jax.Array
    progress: jax.Array | float = 0.0
    weights_ART: jax.Array | None = None


def train_step(
    model: Any, tx: optax.GradientTransformationExtraArgs, schedule: Schedule, rows_per_micro: int,
    state: TrainState, batch: Batch, *, mesh: Mesh | None = None, reduce_dtype: Any = jnp.float32,
    on_nan: Literal["stop", "skip"] = "stop",
) -> tuple[TrainState, dict[str, jax.Array]]:  # fmt: skip
    """The next state, and scalars: loss, norm of the gradient before clipping, the schedule's.

    `model` is a `GPT`; rows come in micro-batches of `rows_per_micro`; `mesh` and `reduce_dtype`
    are those of `gradients`. A step whose loss or gradient is not finite leaves parameters and
    moments as they were; with `on_nan` "stop" so does every step after it, for the host learns of
    it a step late.
    """
    targets_ART, weights_ART = batch.targets_ART, batch.weights_ART
    if weights_ART is None:
        weights_ART = mean_weights(targets_ART, rows_per_micro)
    rows = batch.inputs_ART, targets_ART, weights_ART
    where = mesh, reduce_dtype, state.frozen
    loss, grads = gradients(model, state.params, *rows, *where)
    hyper = schedule(state.step, batch.progress)
    updates, opt_state = tx.update(grads, state.opt_state, state.params, hyper=hyper)
    params, norm = optax.apply_updates(state.params, updates), optax.tree.norm(grads)
    finite = jnp.isfinite(loss) & jnp.isfinite(norm)
    good = finite if on_nan == "skip" else finite & (state.bad == 0)
    # Chosen element by element where each is written anyway; a branch would hold up the device.
    chosen = lambda new, old: jnp.where(good, new, old)
    kept = jax.tree.map(chosen, (params, opt_state), (state.params, state.opt_state))
    metrics = {"train/loss": loss, "train/grad_norm": norm}
    metrics |= {f"train/{name}": value for name, value in hyper._asdict().items()}
    return TrainState(state.step + 1, *kept, state.bad + ~finite, state.frozen), metrics


def mean_weights(targets_ART: jax.Array, rows_per_micro: int) -> jax.Array:
    """Weights `[A, R, T]` that make a sum the mean over micro-batches of their means.

    A micro-batch is `rows_per_micro` consecutive rows; one without any target weighs 0. So a token
    of a short conversation weighs more than one of a long one, as in the original: to divide by all
    targets of the step would be fairer, and other numbers than its.
    """
    A, R, T = targets_ART.shape
    # A run resumed with fewer rows a pass has micro-batches that reach over several of them.
    lead = A if R % rows_per_micro == 0 else 1
    valid_AMrT = (targets_ART >= 0).astype(jnp.float32).reshape(lead, -1, rows_per_micro, T)
    # Rows cut off before their first answer can fill a whole micro-batch: 0 / 0 without the 1.
    count_AM11 = jnp.maximum(valid_AMrT.sum(axis=(2, 3), keepdims=True), 1.0)
    micro_batches = lead * valid_AMrT.shape[1]
    return (valid_AMrT / (count_AM11 * micro_batches)).reshape(A, R, T)


def gradients(
    model: Any, params: Any, inputs_ART: jax.Array, targets_ART: jax.Array, weights_ART: jax.Array,
    mesh: Mesh | None = None, reduce_dtype: Any = jnp.float32, frozen: Any = None,
) -> tuple[jax.Array, Any]:  # fmt: skip
    """Sum over all tokens of weight x nll, and its gradient by `params` in float32.

    With a mesh, rows are split over its devices and each gradient comes out as its parameter lies;
    those of divided parameters are sent and summed in `reduce_dtype`. `frozen` as of `TrainState`.
    """
    rows = inputs_ART, targets_ART, weights_ART
    copy = partial(compute_copy, dtype=model.dtype)
    if mesh is None or mesh.size == 1:
        return _accumulate(model, copy(params), copy(frozen), *rows)

    # Adapters and weights travel each by their own places; a layer gathers what it has of both.
    exchange, frozen_exchange, of_layers = (
        Exchange(mesh, specs(mesh, tree), reduce_dtype)
        for tree in (params, frozen, _whole(params, frozen))
    )
    own = model.clone(gather=of_layers.whole) if exchange.layerwise else model

    # Written out with `shard_map`: left to the compiler, each micro-batch's gradient may be reduced
    # inside of the loop.
    def local(params: Any, frozen: Any, *rows: jax.Array) -> tuple[jax.Array, Any]:
        params, frozen = exchange.once(copy(params)), frozen_exchange.once(copy(frozen))
        loss, grads = _accumulate(own, params, frozen, *rows)
        return lax.psum(loss, AXES), exchange.summed(grads)

    places = (exchange.specs, frozen_exchange.specs, *[P(None, AXES)] * 3)
    split = jax.shard_map(
        local, mesh=mesh, in_specs=places, out_specs=(P(), exchange.specs), check_vma=False
    )
    return split(params, frozen, *rows)


def _whole(params: Any, frozen: Any) -> Any:
    """The parameters of the model: those that are trained, beside frozen weights if there are."""
    return params if frozen is None else lora.attached(frozen, params)


def _accumulate(
    model: Any, params: Any, frozen: Any, inputs_ART: jax.Array, targets_ART: jax.Array,
    weights_ART: jax.Array,
) -> tuple[jax.Array, Any]:  # fmt: skip
    """Loss and float32 gradient summed over the accumulation axis, one micro-batch at a time."""

    def loss_fn(params: Any, x_RT: jax.Array, y_RT: jax.Array, w_RT: jax.Array) -> jax.Array:
        params = jax.tree_util.tree_map_with_path(_fence, _whole(params, frozen))
        return weighted_loss(model, _outside_blocks(model, params), x_RT, y_RT, w_RT)

    def micro(total: tuple[jax.Array, Any], rows: tuple[jax.Array, ...]) -> tuple[Any, None]:
        out = jax.value_and_grad(loss_fn)(params, *rows)
        return jax.tree.map(lambda a, b: a + b.astype(jnp.float32), total, out), None

    # Summed in float32 whatever computed them: a late micro-batch must not drown in the sum.
    zero = jax.tree.map(lambda p: jnp.zeros(p.shape, jnp.float32), params)
    start = (jnp.zeros((), jnp.float32), zero)
    rows = (inputs_ART, targets_ART, weights_ART)
    if inputs_ART.shape[0] == 1:  # nothing to add up: no loop, and no sum held beside
        return micro(start, jax.tree.map(lambda x: x[0], rows))[0]
    return lax.scan(micro, start, rows)[0]


def _outside_blocks(model: Any, params: Any) -> Any:
    """The parameters with those of no block whole: a block gathers its own as it runs."""
    if model.gather is None:
        return params
    of_block = lambda name: name.startswith("h_")
    return {k: p if of_block(k) else model.gather(k, p) for k, p in params.items()}


def compute_copy(params: Any, dtype: Any) -> Any:
    """The matrices in the type that computes, made once a step and not once a micro-batch.

    Gradients are taken by this copy: they are what the layers' own casts would give, for a cast's
    derivative is a cast back. Vectors stay: a scalar of float32 costs nothing.
    """
    cast = lambda p: p.astype(dtype) if p.ndim > 1 and p.dtype == jnp.float32 else p
    return jax.tree.map(cast, params)


def _fence(keys: Any, p: jax.Array) -> jax.Array:
    """A kernel whose gradient a CPU computes as `[out, in]` and transposes afterwards.

    Left alone, XLA folds that transpose into the product, and its kernel for the folded form is
    slow: the fence makes a whole step of the small preset 7-10 % faster.
    """
    return _transposed_gradient(p) if keys[-1].key == "kernel" else p


@jax.custom_vjp
def _transposed_gradient(p: jax.Array) -> jax.Array:
    return p


def _fence_back(_: None, g: jax.Array) -> tuple[jax.Array]:
    fenced = lambda g: lax.optimization_barrier(g.T).T
    return (lax.platform_dependent(g, cpu=fenced, default=lambda g: g),)


_transposed_gradient.defvjp(lambda p: (p, None), _fence_back)
