"""Bits per byte: a loss that does not depend on the tokenizer's vocabulary.

Source: nanochat `nanochat/loss_eval.py`.
"""

import itertools
import math
from collections.abc import Iterable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from nanochat_jax import sharding
from nanochat_jax.data.batch import MicroBatch
from nanochat_jax.evals.placing import mesh_of, placed
from nanochat_jax.models.gpt import GPT, Model
from nanochat_jax.models.loss import weighted_loss


def bits_per_byte(
    model: Model, batches: Iterable[MicroBatch], token_bytes_V: np.ndarray, steps: int | None = None
) -> float:
    """Bits per byte of text over (at most `steps`) micro-batches; infinite if they hold no byte.

    Targets that are -1 or stand for no bytes (special tokens) count in neither sum. Sums over a
    micro-batch are float32, over micro-batches float64.
    """
    # A loss per token cannot be compared between tokenizers: a larger vocabulary makes fewer and
    # harder tokens of the same text. The bytes of the text are the same for all of them.
    token_bytes_V = jnp.asarray(token_bytes_V, jnp.int32)
    nats, count = 0.0, 0
    for batch in itertools.islice(batches, steps):
        rows = placed(model, batch.inputs), placed(model, batch.targets)
        split = mesh_of(model) if isinstance(rows[0], jax.Array) else None
        sums = _sums(model.gpt, split, model.params, *rows, token_bytes_V)
        nats, count = nats + float(sums[0]), count + int(sums[1])
    return nats / (math.log(2) * count) if count else math.inf


@partial(jax.jit, static_argnums=(0, 1))
def _sums(
    gpt: GPT, mesh: Mesh | None, params: Any, inputs_BT: jax.Array, targets_BT: jax.Array,
    token_bytes_V: jax.Array,
) -> tuple[jax.Array, jax.Array]:  # fmt: skip
    """(nats, bytes) of the targets that stand for bytes."""

    def local(params: Any, inputs_BT: jax.Array, targets_BT: jax.Array) -> tuple[jax.Array, ...]:
        # Special tokens stand for no bytes of the text, so their loss is left out as well.
        bytes_BT = jnp.where(targets_BT >= 0, token_bytes_V[jnp.maximum(targets_BT, 0)], 0)
        weights_BT = (bytes_BT > 0).astype(jnp.float32)
        nats = weighted_loss(gpt, params, inputs_BT, targets_BT, weights_BT)
        return nats, jnp.sum(bytes_BT)

    if mesh is None:
        return local(params, inputs_BT, targets_BT)
    # Each device cuts its own rows into tiles; a tile of several devices' rows would travel.
    summed = lambda *args: jax.lax.psum(local(*args), sharding.AXES)
    rows = P(sharding.AXES)
    split = jax.shard_map(
        summed, mesh=mesh, in_specs=(P(), rows, rows), out_specs=P(), check_vma=False
    )
    return split(params, inputs_BT, targets_BT)
