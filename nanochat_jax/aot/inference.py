"""The programs of serving and of scores, compiled for cards: decoding, CORE, bits per byte."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from nanochat_jax.aot import target
from nanochat_jax.aot.cards import Card
from nanochat_jax.aot.programs import Program, compiled
from nanochat_jax.config.gpt import GPTConfig
from nanochat_jax.evals import bpb
from nanochat_jax.evals.core import scoring
from nanochat_jax.evals.core.batches import Shape
from nanochat_jax.models.cache import init_cache
from nanochat_jax.models.gpt import GPT, init_params
from nanochat_jax.serve.engine import decode as engine
from nanochat_jax.serve.engine import weights
from nanochat_jax.serve.engine.draw_kernel import draw
from nanochat_jax.serve.engine.placement import ROWS, STEPS_ROWS, WHOLE, Placement
from nanochat_jax.serve.engine.pool import MAX_ALTERNATIVES, RECORDED
from nanochat_jax.serve.engine.rows import AdjustedRows, idle_rows


def decode(
    cfg: GPTConfig, card: Card, mesh: Mesh, slots: int, length: int, steps: int,
    adjusts: bool = False,
) -> Program:  # fmt: skip
    """A dispatch of the engine's loop: `steps` tokens for each of `slots` rows of a cache of
    `length` tokens, spread over the mesh; bfloat16, weights and kernels as on a GPU. `adjusts`: the
    loop of replies that ask for penalties, biases, min-p or alternatives."""
    gpt = GPT(cfg, dtype=jnp.bfloat16, param_dtype=jnp.bfloat16, attention="pallas")
    rows, nothing = idle_rows(slots, steps), engine.Specials(-1, -1, (-1,))
    asked = (AdjustedRows(slots, length, cfg.vocab_size).sent((), length),) if adjusts else ()
    alternatives = MAX_ALTERNATIVES if adjusts else 0
    run = partial(engine.decode_chunk, gpt.apply, draw, nothing, alternatives)
    into = (WHOLE, ROWS, ROWS, WHOLE, *(ROWS for _ in asked))
    run = Placement(mesh, slots).map(run, into, (ROWS, STEPS_ROWS))
    arguments = (
        target.shaped(mesh, jax.eval_shape(partial(_serving_params, cfg)), WHOLE),
        target.shaped(
            mesh, jax.eval_shape(lambda: init_cache(cfg, slots, length, gpt.dtype)), ROWS
        ),
        target.shaped(mesh, rows, ROWS),
        target.shaped(mesh, jnp.int32(0), WHOLE),
        *(target.shaped(mesh, each, ROWS) for each in asked),
    )
    with target.abstract_mesh(card, mesh):
        lowered = jax.jit(run, donate_argnums=1).lower(*arguments)
    return compiled(lowered, mesh.size, slots * steps, xla_gpu_enable_command_buffer=RECORDED)


def core(cfg: GPTConfig, mesh: Mesh, shape: Shape) -> Program:
    """A batch of CORE's rows, `shape` of them on each device, as training scores it."""
    gpt, n = GPT(cfg, dtype=jnp.bfloat16, attention="cudnn"), mesh.size
    places = [(n * shape.scored,)] * 2
    if shape.ends:
        long = [(n * shape.rows, shape.long), (n * shape.rows,)]
        sizes = [*long, (n * shape.options, shape.ends), (n * shape.options,), *places]
    else:
        sizes = [(n * shape.rows, shape.long), *places]
    arrays = [_ints(mesh, size) for size in sizes]
    lowered = scoring._run.lower(gpt, mesh, _params(cfg, mesh), *arrays)
    return compiled(lowered, n, n * shape.rows * shape.long)


def bits_per_byte(cfg: GPTConfig, mesh: Mesh, rows: int) -> Program:
    """A batch of bits per byte, `rows` rows of full length on each device, cuDNN's attention."""
    gpt = GPT(cfg, dtype=jnp.bfloat16, attention="cudnn")
    tokens = _ints(mesh, (mesh.size * rows, cfg.sequence_len))
    lengths = jax.ShapeDtypeStruct((cfg.vocab_size,), jnp.int32)  # lies anywhere, as in a run
    lowered = bpb._sums.lower(gpt, mesh, _params(cfg, mesh), tokens, tokens, lengths)
    return compiled(lowered, mesh.size, mesh.size * rows * cfg.sequence_len)


def _serving_params(cfg: GPTConfig) -> Any:
    drawn = init_params(cfg, jax.random.key(0), param_dtype=jnp.bfloat16)
    return weights.turned(weights.joined(drawn), weights.TURNED["gpu", "bfloat16"])


def _params(cfg: GPTConfig, mesh: Mesh) -> Any:
    shapes = jax.eval_shape(lambda: init_params(cfg, jax.random.key(0)))
    return target.shaped(mesh, shapes, P())


def _ints(mesh: Mesh, size: tuple[int, ...]) -> Any:
    return target.shaped(mesh, jax.ShapeDtypeStruct(size, jnp.int32), ROWS)
