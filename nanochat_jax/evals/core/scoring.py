"""Scores of prompts, many a forward pass.

Padding lies behind what is scored and attention looks back only, so a score does not depend on
its batch. Only positions that predict a scored token reach the logits, which never leave the
device. Letters: B rows, T their tokens, P shared tokens, R ends of C tokens, M scored tokens.
"""

import collections
import concurrent.futures
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from nanochat_jax import sharding
from nanochat_jax.evals.core import shapes
from nanochat_jax.evals.core.batches import (
    Key,
    Kind,
    RowBatch,
    RowGroup,
    Shape,
    batches,
    groups_of,
    kind_of,
    shape_of,
)
from nanochat_jax.evals.core.prompts import Example, Row
from nanochat_jax.evals.placing import ACCELERATOR_TOKENS, in_flight, placed
from nanochat_jax.models.cache import init_cache
from nanochat_jax.models.gpt import GPT, Model
from nanochat_jax.models.loss import token_nll

# Tokens: below it a second pass costs more than it saves. Sharing beginnings saves most of CORE's
# work: of 1.96 Tflop for 352 questions one by one 0.44 are needed at least (docs/log.md).
LEAST_SHARED = 32


class RowScore(NamedTuple):
    """Of the tokens of a row's span: nats of each, and the token the model expected instead."""

    nll: np.ndarray
    best: np.ndarray


Scored = dict[Key, tuple[Example, list[RowScore]]]


def score(
    model: Model, windows: Iterable[Mapping[Key, Example]], *, mesh: Mesh | None = None,
    batch_tokens: int = ACCELERATOR_TOKENS, least_shared: int = LEAST_SHARED,
    planned: Sequence[Kind] = (),
) -> Iterator[Scored]:  # fmt: skip
    """Question -> (it, scores of its rows) of every question of all windows, batch by batch.

    Args:
        mesh: over which the batches are split; the parameters lie on it.
        batch_tokens: tokens of a forward pass on each device.
        least_shared: rows with fewer common tokens are read whole (with `planned`, those with fewer
            than `shapes` says).
        planned: the few kinds that all batches shall be of (`shapes.plan`), which are compiled side
            by side at once; none: as many kinds as save the most padding.
    """
    pending: dict[Key, Example] = {}
    found: dict[Key, dict[int, RowScore]] = collections.defaultdict(dict)

    def groups(window: Mapping[Key, Example]) -> Iterator[RowGroup]:
        pending.update(window)
        for key, example in window.items():
            few = shapes.groups if planned else partial(groups_of, least_shared=least_shared)
            yield from few(key, example)

    kind, devices = shapes.chooser(planned) if planned else kind_of, mesh.size if mesh else 1
    full = batches(map(groups, windows), batch_tokens, devices, kind, planned)
    wait = _compiling(model, mesh, [shape_of(one, batch_tokens) for one in planned])
    started = ((batch, *_dispatch(model, batch, mesh)) for batch in map(wait, full))
    for batch, nll_M, best_M in in_flight(started):
        nll_M, best_M = np.asarray(nll_M), np.asarray(best_M)
        ready: Scored = {}
        for group, k, at in _places(batch):
            key, rows = group.key, found[group.key]
            rows[group.first + k] = RowScore(nll_M[at], best_M[at])
            # A question is ready with its last row; others' rows wait in `found`.
            if len(rows) == len(pending[key].rows):
                ready[key] = pending.pop(key), [rows[i] for i in sorted(rows)]
                del found[key]
        yield ready


def _places(batch: RowBatch) -> Iterator[tuple[RowGroup, int, slice]]:
    """(group, its row, where that row's scores are) of a whole batch."""
    for device, share in enumerate(batch.shares):
        at = device * batch.shape.scored
        for group in share:
            for k, row in enumerate(group.rows):
                yield group, k, slice(at, at := at + row.end - row.start)


def _compiling(
    model: Model, mesh: Mesh | None, ahead: Sequence[Shape]
) -> Callable[[RowBatch], RowBatch]:
    """Starts to compile the shapes, each in a thread; batch -> it, once its shape is compiled."""
    if not ahead:
        return lambda batch: batch

    def compiled(shape: Shape) -> None:
        # What is compiled so is what a call of `_run` with the same types finds.
        empty = RowBatch(shape, [[]] * (mesh.size if mesh else 1))
        _run.lower(model.gpt, mesh, model.params, *_arrays(model, empty)).compile()

    pool = concurrent.futures.ThreadPoolExecutor(min(len(ahead), os.cpu_count() or 1))
    futures = {shape: pool.submit(compiled, shape) for shape in dict.fromkeys(ahead)}
    pool.shutdown(wait=False)

    def wait(batch: RowBatch) -> RowBatch:
        if batch.shape in futures:
            futures[batch.shape].result()
        return batch

    return wait


def _dispatch(model: Model, batch: RowBatch, mesh: Mesh | None) -> tuple[jax.Array, jax.Array]:
    """Starts a batch: (nll, best) `[M]` of all devices' rows; they need not be done."""
    return _run(model.gpt, mesh, model.params, *_arrays(model, batch))


def _arrays(model: Model, batch: RowBatch) -> list[Any]:
    """What a batch hands to the model, all devices' shares one behind the other."""
    fill = _shared_arrays if batch.shape.ends else _whole_arrays
    shares = zip(*(fill(batch.shape, share) for share in batch.shares), strict=True)
    return [placed(model, np.concatenate(parts)) for parts in shares]


def _whole_arrays(shape: Shape, share: list[RowGroup]) -> tuple[np.ndarray, ...]:
    """ids [B, T]; of each scored token where it is predicted and which it is [M], -1: none."""
    ids_BT = np.zeros((shape.rows, shape.long), np.int32)
    rows = [row for group in share for row in group.rows]
    for b, row in enumerate(rows):
        ids_BT[b, : len(row.ids)] = row.ids
    return ids_BT, *_scored(shape, [(b * shape.long, row) for b, row in enumerate(rows)])


def _shared_arrays(shape: Shape, share: list[RowGroup]) -> tuple[np.ndarray, ...]:
    """Shared ids [B, P], their counts [B], ends [R, C], whose they are [R]; at, targets [M]."""
    shared_BP = np.zeros((shape.rows, shape.long), np.int32)
    length_B = np.ones(shape.rows, np.int32)
    ends_RC = np.zeros((shape.options, shape.ends), np.int32)
    parent_R, placed = np.zeros(shape.options, np.int32), []
    for b, group in enumerate(share):
        n = length_B[b] = group.shared
        shared_BP[b, :n] = group.rows[0].ids[:n]
        for row in group.rows:
            r = len(placed)
            ends_RC[r, : len(row.ids) - n], parent_R[r] = row.ids[n:], b
            placed.append((r * shape.ends - n, row))
    return shared_BP, length_B, ends_RC, parent_R, *_scored(shape, placed)


def _scored(shape: Shape, placed: list[tuple[int, Row]]) -> tuple[np.ndarray, np.ndarray]:
    """Of each scored token of rows that begin there: where it is predicted, which it is."""
    at = [begin + np.arange(row.start - 1, row.end - 1) for begin, row in placed]
    targets = [row.ids[row.start : row.end] for _, row in placed]
    room = shape.scored - sum(map(len, targets))
    filled = lambda parts, fill: np.concatenate([*parts, np.full(room, fill)]).astype(np.int32)
    return filled(at, 0), filled(targets, -1)


@partial(jax.jit, static_argnums=(0, 1))
def _run(gpt: GPT, mesh: Mesh | None, params: Any, *arrays: jax.Array):
    """(nll float32, best int32) `[M]`, on every device."""
    way = _shared if len(arrays) == 6 else _whole
    forward = lambda params, *arrays: gpt.apply({"params": params}, *arrays, method=way)
    if mesh is None:
        return forward(params, *arrays)
    # shard_map says that rows know nothing of each other, so the devices exchange nothing. By
    # itself the compiler would gather every layer's keys to write them into the cache.
    split = P(sharding.AXES)
    specs = (P(), *[split] * len(arrays))
    forward = jax.shard_map(forward, mesh=mesh, in_specs=specs, out_specs=split, check_vma=False)
    return jax.lax.with_sharding_constraint(forward(params, *arrays), sharding.replicated(mesh))


def _whole(gpt: GPT, ids_BT: jax.Array, at_M: jax.Array, target_M: jax.Array):
    """(nll, best) `[M]` of whole rows."""
    x_BTD, _ = gpt.hidden(ids_BT)
    return _of_places(gpt, x_BTD, at_M, target_M)


def _shared(
    gpt: GPT, shared_BP: jax.Array, length_B: jax.Array, ends_RC: jax.Array, parent_R: jax.Array,
    at_M: jax.Array, target_M: jax.Array,
):  # fmt: skip
    """(nll, best) `[M]` of ends that go on from what their parents read."""
    B, long, C = *shared_BP.shape, ends_RC.shape[1]
    # Padding behind a shared part is in the cache too; its length hides it from the ends.
    empty = init_cache(gpt.cfg, B, long + C, gpt.dtype)
    _, cache = gpt.hidden(shared_BP, empty, length_B)
    # Layer by layer, so that only one is held for every end at a time.
    cache = jax.tree.map(lambda x: x[parent_R], cache)
    x_RCD, _ = gpt.hidden(ends_RC, cache)
    return _of_places(gpt, x_RCD, at_M, target_M)


def _of_places(gpt: GPT, x_RTD: jax.Array, at_M: jax.Array, target_M: jax.Array):
    """(nll, best) `[M]`: only the positions that predict a scored token reach the logits."""
    # Logits are as wide as the vocabulary: of all B T positions they would fill the memory, of the
    # M scored ones they do not.
    logits_MV = gpt.logits(x_RTD.reshape(-1, x_RTD.shape[-1])[at_M])
    return token_nll(logits_MV, target_M), jnp.argmax(logits_MV, axis=-1).astype(jnp.int32)
