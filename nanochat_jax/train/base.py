"""The base stage: a model from nothing (or from `--init`) on packed documents."""

import dataclasses
import logging
from typing import Any

import jax

from nanochat_jax.config import values as config_values
from nanochat_jax.config.gpt import GPTConfig, param_counts, recipe_model_defaults, shape_of_depth
from nanochat_jax.config.paths import base_dir
from nanochat_jax.config.stages import BaseTrain
from nanochat_jax.data import shards
from nanochat_jax.data.loader import pretraining_loader
from nanochat_jax.tokenizer import Tokenizer
from nanochat_jax.train import loop, scaling, stage
from nanochat_jax.train.optimizer import make_optimizer
from nanochat_jax.train.schedules import make_schedule
from nanochat_jax.train.tokenizer import find_data

log = logging.getLogger(__name__)


def run(config: BaseTrain) -> stage.Section:
    """Trains to the horizon and returns the section of the report.

    Raises:
        FileNotFoundError: no shards, no tokenizer, or nothing to resume.
        ValueError: settings that do not fit together; the message says what would.
    """
    root = base_dir()
    start = stage.origin("base", config, root)
    data = find_data(root, config.embedded_world)
    mark = stage.fingerprint("base", config, root)
    tokenizer = stage.tokenizer_for(start, root)
    cfg = start.model_config() or model_config(config, tokenizer.get_vocab_size())
    config = dataclasses.replace(config, max_seq_len=cfg.sequence_len)
    plan = scaling.plan(cfg, config)
    mesh = stage.mesh_of(config)
    job = _job(config, cfg, start, tokenizer, data, plan, mesh, mark)
    log.info(_headline(cfg, config, plan, job))
    scores = loop.run(job)
    return "Base model training", [config_values.flatten(config), _figures(cfg, plan, job, scores)]


def _job(
    config: BaseTrain,
    cfg: GPTConfig,
    start: stage.Origin,
    tokenizer: Tokenizer,
    data: shards.Shards,
    plan: Any,
    mesh: jax.sharding.Mesh,
    mark: dict[str, Any],
) -> loop.Job:
    gpt = stage.gpt_of(cfg, config)
    optim = plan.optim
    initial = stage.initial_params(gpt, start, config)
    shapes = jax.eval_shape(initial)
    tx = make_optimizer(
        cfg, optim, shapes, mesh=mesh, compute_dtype=gpt.dtype, lr_scale=config.init_lr_frac
    )
    rows, T = config.device_batch_size, config.max_seq_len
    batches = lambda files, **kw: pretraining_loader(
        files, tokenizer, rows, T, kind=config.loader, **kw
    )
    tag = config.model_tag or (start.saved.path.parent.name if start.saved else f"d{config.depth}")
    due = (
        stage.bpb_due(config, lambda: batches([data.val]), tokenizer),
        stage.core_due(config, tokenizer, base_dir()),
        stage.sample_due(config, tokenizer),
    )
    return loop.Job(
        stage="base",
        config=config,
        directory=stage.target_directory("base", tag, base_dir(), start.resumed is not None),
        gpt=gpt,
        tokenizer=tokenizer,
        mesh=mesh,
        tx=tx,
        schedule=make_schedule(optim, plan.num_iterations),
        initial=initial,
        loader=batches(data.train, ranks=config.loader_ranks),
        micro_per_step=stage.micro_per_step(config, plan.total_batch_size, mesh),
        steps=plan.num_iterations,
        due=due,
        fingerprint=mark,
        saved=start.resumed,
        flops_per_token=plan.flops_per_token,
    )


def model_config(config: BaseTrain, vocab_size: int) -> GPTConfig:
    """The model that the dial, the recipe and the tokenizer ask for."""
    shape = shape_of_depth(config.depth, config.aspect_ratio, config.head_dim)
    defaults = recipe_model_defaults(config.recipe)
    given = dict(sequence_len=config.max_seq_len, window_pattern=config.window_pattern)
    return GPTConfig(**{**defaults, **shape, **given, "vocab_size": vocab_size})


def _headline(cfg: GPTConfig, config: BaseTrain, plan: scaling.Plan, job: loop.Job) -> str:
    """What is about to be trained, in two lines."""
    count = param_counts(cfg)["total"]
    return (
        f"base: depth {cfg.n_layer}, width {cfg.n_embd}, {count:,} parameters, "
        f"vocabulary {cfg.vocab_size}; {plan.num_iterations:,} steps of "
        f"{plan.total_batch_size:,} tokens = {plan.total_tokens:,} tokens\n"
        f"on {job.devices} device(s), {job.micro_per_step // job.devices} accumulation step(s) of "
        f"{config.device_batch_size} x {config.max_seq_len} tokens a device"
    )


def _figures(
    cfg: GPTConfig, plan: scaling.Plan, job: loop.Job, scores: loop.Scores
) -> dict[str, Any]:
    counts = param_counts(cfg)
    return {
        "Number of parameters": counts["total"],
        "Number of FLOPs per token": f"{plan.flops_per_token:e}",
        "Tokens : Params ratio": plan.total_tokens / counts["total"],
        "Devices": job.devices,
        "Total training flops": f"{plan.total_flops:e}",
    } | stage.figures(scores)
