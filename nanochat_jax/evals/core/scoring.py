"""Scores of prompts, many a forward pass.

Two ways for a question. `whole`: its rows go through the model as they are, next to those of other
questions. `shared`: what its options have in common is read once, into a cache that each option
goes on from (with four options after ten solved examples that is a quarter of the work). Rows are
sorted by length and padded to a few lengths, so that few shapes are compiled; padding lies behind
what is scored, and attention looks back only, so a score does not depend on its batch.
Letters: B questions or rows of a batch, N options, P shared tokens, C tokens of an option's own
end, S scored tokens.
"""

import collections
import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from nanochat_jax import sharding
from nanochat_jax.evals.core.prompts import Example, Row, common_prefix
from nanochat_jax.models.cache import init_cache
from nanochat_jax.models.gpt import GPT, Model
from nanochat_jax.models.loss import token_nll

LEAST_SHARED = 32  # tokens; below it a second pass costs more than it saves
SHARE_OF_LOGITS = 4  # a batch has at most this part of its tokens scored: logits are wide
IN_FLIGHT = 2  # batches that the device may have before it


class Score(NamedTuple):
    """Of the tokens of a row's span: nats of each, and the token the model expected instead."""

    nll: np.ndarray
    best: np.ndarray


@dataclasses.dataclass(frozen=True)
class Job:
    """Rows of one question that are scored together: `rows[k]` is its row `first + k`.

    `shared` counts the tokens read once for all of them; 0: the job is one whole row.
    """

    question: int
    first: int
    rows: tuple[Row, ...]
    shared: int = 0

    @property
    def shape(self) -> tuple[int, int, int]:
        """(padded length of the shared or whole part, of the own ends, of the spans)."""
        if not self.shared:
            (row,) = self.rows
            return bucket(len(row.ids)), 0, bucket(row.end - row.start, 8)
        ends = bucket(max(len(row.ids) for row in self.rows) - self.shared)
        return bucket(self.shared), ends, min(ends, bucket(max(r.end - r.start for r in self.rows)))


def bucket(n: int, least: int = 16) -> int:
    """The least of `least`, and the powers of two and their halves between, that holds n."""
    power = least
    while power < n:
        power *= 2
    return power * 3 // 4 if power > least and n <= power * 3 // 4 else power


def score(
    model: Model,
    examples: Mapping[int, Example],
    *,
    mesh: Mesh | None = None,
    batch_tokens: int = 16384,
    least_shared: int = LEAST_SHARED,
) -> Iterator[dict[int, list[Score]]]:
    """Question -> scores of its rows, for all questions, as batch after batch is done.

    Args:
        mesh: over which the batches are split; the parameters lie on it.
        batch_tokens: tokens of a forward pass on each device.
        least_shared: rows with fewer common tokens are read whole.
    """
    found: dict[int, dict[int, Score]] = collections.defaultdict(dict)
    jobs = [job for i, e in examples.items() for job in _jobs(i, e, least_shared)]
    waiting: collections.deque = collections.deque()
    for batch in batches(jobs, batch_tokens, mesh.size if mesh else 1):
        waiting.append((batch, _dispatch(model, batch, mesh)))
        if len(waiting) > IN_FLIGHT:
            yield _whole_questions(found, examples, *waiting.popleft())
    while waiting:
        yield _whole_questions(found, examples, *waiting.popleft())


def _jobs(i: int, example: Example, least_shared: int) -> list[Job]:
    """One job for all rows of a question, if sharing pays, else one a row."""
    rows = example.rows
    shared = 0 if len(rows) == 1 else _shared(rows)
    if shared >= least_shared:
        return [Job(i, 0, rows, shared)]
    return [Job(i, j, (row,)) for j, row in enumerate(rows)]


def _shared(rows: Sequence[Row]) -> int:
    """Tokens common to all rows before the one that foretells the first scored one."""
    return min(common_prefix([row.ids for row in rows]), *(row.start for row in rows)) - 1


class Batch(NamedTuple):
    """Jobs of one forward pass, and the padded shape they share."""

    jobs: list[Job]
    rows: int
    options: int
    shape: tuple[int, int, int]


def batches(jobs: Sequence[Job], batch_tokens: int, devices: int = 1) -> Iterator[Batch]:
    """All jobs, the longest first; only the last batch of each way may have rows to spare."""
    for way in (False, True):
        left = [job for job in jobs if (job.shared > 0) == way]
        left.sort(key=lambda job: (job.shape, len(job.rows[0].ids)), reverse=True)
        while left:
            rows = _fitting(left[0].shape, len(left[0].rows), batch_tokens)
            some, left = left[: rows * devices], left[rows * devices :]
            rows = min(rows, _power(-(-len(some) // devices), up=True)) * devices
            shape = tuple(max(job.shape[k] for job in some) for k in range(3))
            yield Batch(some, rows, max(len(job.rows) for job in some), shape)


def _fitting(shape: tuple[int, int, int], options: int, batch_tokens: int) -> int:
    """Jobs of that shape in a batch, a power of two."""
    long, ends, scored = shape
    by_tokens = batch_tokens // (long + options * ends)
    by_logits = batch_tokens // (SHARE_OF_LOGITS * options * scored)
    return _power(max(1, min(by_tokens, by_logits)))


def _power(n: int, up: bool = False) -> int:
    """The power of two at or below n (`up`: at or above)."""
    return 1 << ((n - 1).bit_length() if up else n.bit_length() - 1)


def _dispatch(model: Model, batch: Batch, mesh: Mesh | None) -> tuple[jax.Array, jax.Array]:
    """Starts a batch: (nll, best) `[B, N, S]` of its jobs' rows; the device need not be done."""
    long, ends, scored = batch.shape
    arrays = _shared_arrays(batch) if ends else _whole_arrays(batch)
    return _run(model.gpt, scored, mesh, model.params, *(_placed(a, mesh) for a in arrays))


def _whole_arrays(batch: Batch) -> tuple[np.ndarray, ...]:
    """ids [B, T] and spans [B, 2]; a row to spare has an empty span."""
    ids_BT = np.zeros((batch.rows, batch.shape[0]), np.int32)
    span_B2 = np.ones((batch.rows, 2), np.int32)
    for b, job in enumerate(batch.jobs):
        (row,) = job.rows
        ids_BT[b, : len(row.ids)] = row.ids
        span_B2[b] = row.start, row.end
    return ids_BT, span_B2


def _shared_arrays(batch: Batch) -> tuple[np.ndarray, ...]:
    """Shared ids [B, P], their counts [B], own ends [B, N, C], spans in those [B, N, 2]."""
    B, N, (long, ends, _) = batch.rows, batch.options, batch.shape
    shared_BP, length_B = np.zeros((B, long), np.int32), np.ones(B, np.int32)
    ends_BNC, span_BN2 = np.zeros((B, N, ends), np.int32), np.ones((B, N, 2), np.int32)
    for b, job in enumerate(batch.jobs):
        n = length_B[b] = job.shared
        shared_BP[b, :n] = job.rows[0].ids[:n]
        for k, row in enumerate(job.rows):
            ends_BNC[b, k, : len(row.ids) - n] = row.ids[n:]
            span_BN2[b, k] = row.start - n, row.end - n
    return shared_BP, length_B, ends_BNC, span_BN2


def _placed(array: np.ndarray, mesh: Mesh | None) -> Any:
    """The array with its first axis over the mesh."""
    if mesh is None:
        return array
    split = jax.sharding.NamedSharding(mesh, P(sharding.AXES))
    return jax.make_array_from_callback(array.shape, split, lambda index: array[index])


@partial(jax.jit, static_argnums=(0, 1, 2))
def _run(gpt: GPT, scored: int, mesh: Mesh | None, params: Any, *arrays: jax.Array):
    """(nll float32, best int32) `[B, N, scored]`, on every device."""
    forward = partial(shared if len(arrays) == 4 else whole, gpt, scored)
    if mesh is None:
        return forward(params, *arrays)
    # Rows know nothing of each other: told so, the devices exchange nothing. By itself the
    # compiler would gather every layer's keys to write them into the cache.
    split = P(sharding.AXES)
    specs = (P(), *[split] * len(arrays))
    forward = jax.shard_map(forward, mesh=mesh, in_specs=specs, out_specs=split, check_vma=False)
    return jax.lax.with_sharding_constraint(forward(params, *arrays), sharding.replicated(mesh))


def whole(gpt: GPT, scored: int, params: Any, ids_BT: jax.Array, span_B2: jax.Array):
    """(nll, best) `[B, 1, scored]` of whole rows."""

    def forward(gpt: GPT):
        x_BTD, _ = gpt.hidden(ids_BT)
        return _of_spans(gpt, scored, x_BTD, ids_BT, span_B2)

    return tuple(a[:, None] for a in gpt.apply({"params": params}, method=forward))


def shared(
    gpt: GPT, scored: int, params: Any,
    shared_BP: jax.Array, length_B: jax.Array, ends_BNC: jax.Array, span_BN2: jax.Array,
):  # fmt: skip
    """(nll, best) `[B, N, scored]` of options that go on from what they share."""
    (B, N, C), long = ends_BNC.shape, shared_BP.shape[1]
    each = lambda a, axis: jnp.repeat(a, N, axis=axis)

    def forward(gpt: GPT):
        cache = init_cache(gpt.cfg, B, long + C, gpt.dtype)
        _, cache = gpt.hidden(shared_BP, cache, length_B)
        cache = cache.replace(
            keys=each(cache.keys, 1), values=each(cache.values, 1),
            length_B=each(cache.length_B, 0), last_embed_BD=each(cache.last_embed_BD, 0),
        )  # fmt: skip
        ends_RC = ends_BNC.reshape(B * N, C)
        x_RCD, _ = gpt.hidden(ends_RC, cache)
        return _of_spans(gpt, scored, x_RCD, ends_RC, span_BN2.reshape(B * N, 2))

    found = gpt.apply({"params": params}, method=forward)
    return tuple(a.reshape(B, N, scored) for a in found)


def _of_spans(gpt: GPT, scored: int, x_RTD: jax.Array, ids_RT: jax.Array, span_R2: jax.Array):
    """(nll, best) `[R, scored]`: only the positions that foretell a span reach the logits."""
    next_RS = span_R2[:, :1] + jnp.arange(scored)[None]
    inside_RS = next_RS < span_R2[:, 1:]
    next_RS = jnp.minimum(next_RS, ids_RT.shape[1] - 1)
    target_RS = jnp.where(inside_RS, jnp.take_along_axis(ids_RT, next_RS, axis=1), -1)
    x_RSD = jnp.take_along_axis(x_RTD, next_RS[..., None] - 1, axis=1)
    logits_RSV = gpt.logits(x_RSD)
    return token_nll(logits_RSV, target_RS), jnp.argmax(logits_RSV, axis=-1).astype(jnp.int32)


def _whole_questions(
    found: dict[int, dict[int, Score]],
    examples: Mapping[int, Example],
    batch: Batch,
    scores: tuple[jax.Array, jax.Array],
) -> dict[int, list[Score]]:
    """The questions whose last row came with this batch; others' rows wait in `found`."""
    nll_BNS, best_BNS = map(np.asarray, scores)
    ready = {}
    for b, job in enumerate(batch.jobs):
        rows = found[job.question]
        for k, row in enumerate(job.rows):
            n = row.end - row.start
            rows[job.first + k] = Score(nll_BNS[b, k, :n], best_BNS[b, k, :n])
        if len(rows) == len(examples[job.question].rows):
            ready[job.question] = [rows[k] for k in sorted(rows)]
            del found[job.question]
    return ready
