"""The one assembly of a training run, for every stage's config.

`prepare` gives a `Run`, which `train/loop.py` drives. Tests, benchmarks and ahead-of-time
compilation use the same step through `trainer` and `abstract_run`, which need shapes alone.
"""

import dataclasses
import functools
import pathlib
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from nanochat_jax import kernels, locks, sharding
from nanochat_jax.checkpoint import store, whole
from nanochat_jax.config import flags, scaling
from nanochat_jax.config.gpt import GPTConfig
from nanochat_jax.config.stages import BaseTrain, RLTrain, Stage, rank_of, tokens_per_step
from nanochat_jax.devices import compute_dtype
from nanochat_jax.hosts import group
from nanochat_jax.models import lora
from nanochat_jax.models.gpt import GPT, Model, init_params
from nanochat_jax.tokenizer import Tokenizer
from nanochat_jax.train import adapters, base, chat, memory, metrics, origin, rl
from nanochat_jax.train.curriculum import Curriculum, RunContext, StepRows
from nanochat_jax.train.optimizer import make_optimizer
from nanochat_jax.train.origin import Origin
from nanochat_jax.train.schedules import run_schedule
from nanochat_jax.train.step import Batch, TrainState, compute_copy, train_step
from nanochat_jax.train.tokenizer import find_data

CURRICULA: dict[str, Callable[[Any, RunContext], Curriculum]] = {
    "base": base.curriculum, "mid": chat.curriculum, "sft": chat.curriculum, "rl": rl.curriculum,
}  # fmt: skip
Step = Callable[[TrainState, Batch], tuple[TrainState, dict[str, jax.Array]]]


@dataclasses.dataclass(frozen=True)
class Trainer:
    """A model, its optimizer and the jitted step on a mesh; holds no arrays.

    `step(state, batch)` consumes (donates) the state and gives the next one with its metrics;
    `state` is that of the arguments: shapes, types and places.
    """

    gpt: GPT
    tx: optax.GradientTransformationExtraArgs
    mesh: jax.sharding.Mesh
    step: Step
    state: TrainState

    def place(self, rows: StepRows) -> Batch:
        """The step's batch on the mesh, its rows dealt out over the devices."""
        where = sharding.batch_sharding(self.mesh)
        put = lambda a: sharding.from_host(a, where)  # each process hands over its own rows alone
        weights = None if rows.weights is None else put(rows.weights)
        return Batch(put(rows.inputs), put(rows.targets), np.float32(rows.progress), weights)

    @property
    def weights(self) -> Any:
        """The parameters of the model in `state`: what is trained, or stands frozen beside it."""
        return self.state.params if self.state.frozen is None else self.state.frozen

    def fresh_state(self, params: Any, frozen: Any = None) -> TrainState:
        """The state before any step, with those parameters and an optimizer that saw nothing."""
        places = jax.tree.map(lambda a: a.sharding, self.state)
        params, frozen = (
            sharding.put(tree, where)
            for tree, where in ((params, places.params), (frozen, places.frozen))
        )
        # Zeros made where they will lie: one device may not hold them all.
        moments = jax.jit(self.tx.init, out_shardings=places.opt_state)(params)
        none = lambda place: sharding.put(np.int32(0), place)
        return TrainState(none(places.step), params, moments, none(places.bad), frozen)

    def model(self, state: TrainState) -> Model:
        """The model as it is now: its matrices in the type that computes, whole on every device.

        Adapters are merged, as where a checkpoint of them is loaded.
        """
        if self.mesh.size == 1 and state.frozen is None:
            return Model(self.gpt, state.params)
        return Model(self.gpt, self._whole(state.params, state.frozen))

    @functools.cached_property
    def _whole(self) -> Callable[[Any, Any], Any]:
        def whole(params: Any, frozen: Any) -> Any:
            params = params if frozen is None else lora.merged(frozen, params)
            return params if self.mesh.size == 1 else compute_copy(params, self.gpt.dtype)

        return jax.jit(whole, out_shardings=sharding.replicated(self.mesh))


@dataclasses.dataclass(frozen=True)
class Run:
    """One training run, ready to start.

    `warm_optimizer` is a checkpoint of another stage whose optimizer state is taken over; `adapted`
    what the run's checkpoints say of its adapters, `source` of the step that it was born from.
    """

    stage: str
    config: Stage
    directory: pathlib.Path
    tokenizer: Tokenizer
    trainer: Trainer
    curriculum: Curriculum
    start: Origin = Origin()
    fingerprint: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    warm_optimizer: store.Saved | None = None
    adapted: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    source: Mapping[str, Any] | None = None

    def first_state(self) -> TrainState:
        """The state the run begins with, on the mesh: as its checkpoint left it, or fresh."""
        trainer, saved, source = self.trainer, self.start.resumed, self.start.source
        like = trainer.state
        if saved is not None:
            put = lambda number, like: sharding.put(np.int32(number), like.sharding)
            arrays = saved.trained(like.params), saved.optimizer(like.opt_state)
            frozen = None if like.frozen is None else saved.base.params(like.frozen)
            return TrainState(put(saved.step, like.step), *arrays, put(0, like.bad), frozen)
        # Read to where they will lie, not whole to one device.
        key = jax.random.key(self.config.seed)
        params = source.params(trainer.weights) if source else init_params(trainer.gpt.cfg, key)
        if rank := rank_of(self.config):
            state = trainer.fresh_state(lora.init_adapters(params, rank, key), params)
        else:
            state = trainer.fresh_state(params)
        if self.warm_optimizer is not None:
            state = state.replace(opt_state=self.warm_optimizer.optimizer(like.opt_state))
        return state


def prepare(stage: str, config: Stage, root: pathlib.Path) -> Run:
    """Everything a stage's run needs. Writes nothing but the embedded world, where asked for.

    Raises:
        FileNotFoundError: no data, no tokenizer, or no checkpoint to begin at; the message names
            the command that makes it.
        ValueError: settings that do not fit together, or a damaged checkpoint.
    """
    metrics.check_run_name(config.run)
    start = origin.find(stage, config, root)
    origin.check_order(config, start)
    adapters.check_resumed(config, start.resumed)
    if start.saved is not None:
        # The only time that its files are read for their digests.
        group.first(lambda: whole.verify(start.saved))
    if stage == "base":
        # Before the tokenizer, which is made of it: of two things that are missing, the first one.
        with group.chief_first():
            find_data(root, config.embedded_world)
    tokenizer = start.tokenizer(root)
    cfg, mesh = start.model_config(), sharding.make_mesh(config.mesh or None)
    # Of the config as it was given, before a checkpoint's length stands in it.
    fingerprint = origin.fingerprint(config, start, tokenizer)
    directory = origin.directory(stage, start.tag(config), root)
    group.first(lambda: locks.check(directory))  # now, not after minutes of compiling
    # The length of base rows is the model's; `--init` may bring another one than the flags say.
    if isinstance(config, BaseTrain):
        cfg = cfg or base.model_config(config, tokenizer.get_vocab_size())
        config = dataclasses.replace(config, max_seq_len=cfg.sequence_len)
    rows = start.micro_rows or config.device_batch_size
    step = rows, micro_batches(config, cfg, rows), passes(config, cfg, mesh)
    context = RunContext(cfg, tokenizer, mesh, *step, root, directory, start.data)
    with group.chief_first():  # it may fetch task files
        curriculum = CURRICULA[stage](config, context)
    # A checkpoint that came from elsewhere may store tables in bfloat16, and keeps doing so.
    shapes = start.saved.param_shapes() if start.saved else None
    run = dict(steps=curriculum.steps, params=shapes, micro_rows=rows)
    made = trainer(for_this_machine(config, cfg, mesh, **run), cfg, mesh, **run)
    warm = chat.warm_optimizer(config, start) if stage == "sft" else None
    adapted = adapters.meta(config, start, root)
    source = origin.source(start, root)
    return Run(
        stage, config, directory, tokenizer, made, curriculum, start, fingerprint, warm, adapted,
        source,
    )  # fmt: skip


def trainer(
    config: Stage, cfg: GPTConfig, mesh: jax.sharding.Mesh, *, steps: int | None,
    params: Any = None, micro_rows: int | None = None,
) -> Trainer:  # fmt: skip
    """The program's own step for a model and any stage's config.

    Args:
        steps: optimizer steps of the run; None: one pass over the data.
        params: shapes of parameters that a checkpoint stores in types of its own; None: as drawn.
        micro_rows: rows that the loss is first averaged over; None: `device_batch_size`.
    """
    gpt, frozen = model_of(cfg, config), None
    optim = scaling.plan(cfg, config).optim if isinstance(config, BaseTrain) else config.optim
    if params is None:
        params = jax.eval_shape(lambda: init_params(cfg, jax.random.key(0)))
    where = dict(mesh=mesh, compute_dtype=gpt.dtype)
    if rank_of(config):
        params, frozen = adapters.shapes(config, params), params
        tx = adapters.make_optimizer(config, params, **where)
    else:
        tx = make_optimizer(cfg, optim, params, **where, lr_scale=config.init_lr_frac)
    state = jax.eval_shape(lambda *trees: TrainState.create(trees[0], tx, trees[1]), params, frozen)
    places = sharding.shardings(mesh, state)
    typed = lambda a, place: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=place)
    schedule = run_schedule(optim, steps)
    reduce = gpt.dtype if config.reduce_dtype == "auto" else jnp.dtype(config.reduce_dtype)
    how = dict(mesh=mesh, reduce_dtype=reduce, on_nan=config.on_nan)
    rows = micro_rows or config.device_batch_size
    step = partial(train_step, gpt, tx, schedule, rows, **how)
    # Donated, so that old and new state never lie in memory together; the places of the result
    # are pinned, or the compiler may choose others and the next step compiles anew.
    jitted = jax.jit(step, donate_argnums=0, out_shardings=(places, None))
    # Steps alone: a score in eight bits would be that of another model than the one that is saved.
    return Trainer(gpt.clone(fp8=False), tx, mesh, jitted, jax.tree.map(typed, state, places))


def for_this_machine(config: Stage, cfg: GPTConfig, mesh: jax.sharding.Mesh, **run: Any) -> Stage:
    """The config with `--attention auto` and `--remat auto` settled, by trying; `run` as `trainer`.

    Raises:
        ValueError: a kernel that was asked for by name does not run here, or `--fp8`; or no step
            fits.
    """
    dtype = compute_dtype(config.dtype)
    if isinstance(config, BaseTrain) and config.fp8:
        kernels.check_fp8(mesh.devices.flat[0])
    attention = kernels.choose_attention(config.attention, cfg, dtype)
    config = dataclasses.replace(config, attention=attention)
    peak = partial(peak_bytes, cfg=cfg, mesh=mesh, **run)
    sizes = batch_sizes(config, cfg, mesh)
    # The same for all processes: they run one program.
    return memory.choose_remat(config, sizes, peak, min(group.gathered(memory.pool_bytes())))


def does_not_fit(run: Run, error: BaseException, begun: bool) -> str:
    """What a person is told whose run ended for want of memory; `begun` as of
    `telling.stopped`."""
    config, cfg, mesh = run.config, run.trainer.gpt.cfg, run.trainer.mesh
    gpt = run.trainer.gpt
    config = dataclasses.replace(config, attention=gpt.attention, remat=gpt.remat)
    shapes = dict(steps=run.curriculum.steps, params=run.trainer.weights)
    rows = dict(micro_rows=run.start.micro_rows)
    peak = partial(peak_bytes, cfg=cfg, mesh=mesh, **shapes, **rows)
    limit = memory.pool_bytes() or memory.machine_bytes()
    goes_on = begun and store.steps(run.directory)  # what is done is not to be done again
    command = partial(flags.to_go_on, run.directory.name) if goes_on else flags.again
    sizes = batch_sizes(config, cfg, mesh)
    return memory.too_large(memory.asked_for(error), config, sizes, peak, limit, command)


def peak_bytes(config: Stage, cfg: GPTConfig, mesh: jax.sharding.Mesh, **run: Any) -> int:
    """Bytes on a device that the compiled step needs at its peak; `run` as `trainer`."""
    step, state, batch = abstract_run(config, cfg, mesh, **run)
    return memory.program_bytes(step.lower(state, batch).compile())


def model_of(cfg: GPTConfig, config: Stage) -> GPT:
    """The model as a run computes it. Types, attention and what the backward pass recomputes are
    chosen here alone; none of them changes what the model means. What is still open (`auto`, in a
    run from shapes) is what works everywhere."""
    attention = kernels.ANYWHERE if config.attention == "auto" else config.attention
    remat = "none" if config.remat == "auto" else config.remat
    fp8 = isinstance(config, BaseTrain) and config.fp8
    dtype = compute_dtype(config.dtype)
    return GPT(cfg, dtype=dtype, attention=attention, remat=remat, fp8=fp8)


def abstract_run(
    config: Stage, cfg: GPTConfig, mesh: jax.sharding.Mesh, *, steps: int | None = 1,
    params: Any = None, micro_rows: int | None = None,
) -> tuple[Step, TrainState, Batch]:  # fmt: skip
    """(jitted step, state, batch) of a run from shapes alone: `step.lower(state, batch)` compiles
    a model that no memory here could hold. Rows have the full length. `steps` and what follows: as
    of `trainer`; the steps stand in the program, so a run that was compiled so needs the same.

    Raises:
        ValueError: the batch does not divide over the mesh.
    """
    made = trainer(config, cfg, mesh, steps=steps, params=params, micro_rows=micro_rows)
    T = min(config.max_seq_len, cfg.sequence_len)
    shape = (passes(config, cfg, mesh), mesh.size * config.device_batch_size, T)
    where = sharding.batch_sharding(mesh)
    array = lambda dtype: jax.ShapeDtypeStruct(shape, dtype, sharding=where)
    weights = array(jnp.float32) if isinstance(config, RLTrain) else None
    tokens = array(jnp.int32)
    return made.step, made.state, Batch(tokens, tokens, jnp.float32(0), weights)


def step_tokens(config: Stage, cfg: GPTConfig) -> int:
    """Tokens of an optimizer step of any stage."""
    base_run = isinstance(config, BaseTrain)
    return scaling.plan(cfg, config).total_batch_size if base_run else tokens_per_step(config)


def batch_sizes(config: Stage, cfg: GPTConfig, mesh: jax.sharding.Mesh) -> list[int]:
    """The values of `device_batch_size` that divide the stage's step, ascending."""
    rows, rest = divmod(step_tokens(config, cfg), config.max_seq_len * mesh.size)
    return [] if rest else [size for size in range(1, rows + 1) if rows % size == 0]


def micro_batches(config: Stage, cfg: GPTConfig, micro_rows: int) -> int:
    """Micro-batches of so many rows in a step: pulls of the loader.

    Raises:
        ValueError: a step is no whole number of them: a run that goes on would have other data.
    """
    rows, rest = divmod(step_tokens(config, cfg), config.max_seq_len)
    if rest or rows % micro_rows == 0 or micro_rows == config.device_batch_size:
        return rows // micro_rows  # the rest is told by `passes`
    raise ValueError(
        f"a step of {rows} rows is no whole number of micro-batches of {micro_rows} rows, by which "
        f"this run's data are dealt out since it began (with --device-batch-size {micro_rows}); "
        f"let a step have a multiple of {micro_rows} rows, or begin anew without --resume"
    )


def passes(config: Stage, cfg: GPTConfig, mesh: jax.sharding.Mesh) -> int:
    """Forward and backward passes of a step, each of `device_batch_size` rows on every device.

    Raises:
        ValueError: the batch does not divide; the message says what would fit.
    """
    total, B, T = step_tokens(config, cfg), config.device_batch_size, config.max_seq_len
    devices = mesh.size
    if total % (B * T * devices) == 0:
        return total // (B * T * devices)
    if fits := batch_sizes(config, cfg, mesh):
        advice = f"set --device-batch-size to one of {', '.join(map(str, fits[-6:]))}"
    elif isinstance(config, RLTrain):
        advice = f"set --num-samples to a multiple of {B * devices}"
    else:
        advice = f"set --total-batch-size to a multiple of {B * T * devices}"
    raise ValueError(
        f"a step of {total} tokens ({total // T} rows) does not divide into micro-batches of "
        f"{B} x {T} tokens on {devices} device(s); {advice}, or use fewer devices with --mesh"
    )
