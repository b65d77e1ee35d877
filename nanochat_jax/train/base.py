"""The base stage: a model from nothing (or from `--init`) learns to continue packed documents."""

from nanochat_jax.config import paths, scaling
from nanochat_jax.config.gpt import GPTConfig, param_counts, recipe_model_defaults, shape_of_depth
from nanochat_jax.config.stages import BaseTrain
from nanochat_jax.data.loader import pretraining_loader
from nanochat_jax.train import hooks
from nanochat_jax.train.curriculum import Curriculum, RunContext, loader_rows
from nanochat_jax.train.tokenizer import find_data


def model_config(config: BaseTrain, vocab_size: int) -> GPTConfig:
    """The model that the dial, the recipe and the tokenizer ask for."""
    shape = shape_of_depth(config.depth, config.aspect_ratio, config.head_dim)
    defaults = recipe_model_defaults(config.recipe)
    given = dict(sequence_len=config.max_seq_len, window_pattern=config.window_pattern)
    return GPTConfig(**{**defaults, **shape, **given, "vocab_size": vocab_size})


def curriculum(config: BaseTrain, context: RunContext) -> Curriculum:
    """Documents to the horizon of the scaling plan.

    Raises:
        FileNotFoundError: there are no shards.
        ValueError: the settings name no horizon.
    """
    cfg, tokenizer, devices = context.cfg, context.tokenizer, context.mesh.size
    data, plan = find_data(context.root, config.embedded_world), scaling.plan(cfg, config)
    # One recipe of rows for both splits: a validation loss on rows cut in another way would not
    # be that of the training's task.
    batches = lambda files, **kw: pretraining_loader(
        files, tokenizer, config.device_batch_size, config.max_seq_len, kind=config.loader, **kw
    )
    val = lambda: batches([data.val])
    counts, steps, tokens = param_counts(cfg)["total"], plan.num_iterations, plan.total_batch_size
    own = {
        "Number of parameters": counts,
        "Number of FLOPs per token": f"{plan.flops_per_token:e}",
        "Tokens : Params ratio": plan.total_tokens / counts,
        "Devices": devices,
        "Total training flops": f"{plan.total_flops:e}",
    }
    train, micro_batches = batches(data.train, ranks=config.loader_ranks), context.micro_batches
    return Curriculum(
        summary=f"base: depth {cfg.n_layer}, width {cfg.n_embd}, {counts:,} parameters, vocabulary "
        f"{cfg.vocab_size}; {steps:,} steps of {tokens:,} tokens = {plan.total_tokens:,} tokens\n"
        f"on {devices} device(s), {micro_batches // devices} accumulation step(s) of "
        f"{config.device_batch_size} x {config.max_seq_len} tokens a device",
        steps=steps,
        rows=loader_rows(train, micro_batches, devices, steps, tokens),
        hooks=(
            hooks.bits_per_byte_hook(config, tokenizer, val, config.eval_tokens),
            hooks.core_hook(config, tokenizer, paths.eval_bundle(context.root)),
            hooks.samples_hook(config, tokenizer),
        ),
        figures=lambda common: own | common,
        flops_per_token=plan.flops_per_token,
    )
