"""Midtraining and SFT: a base model learns to hold a conversation.

Both read a mixture of conversations. Midtraining cuts rows from one stream of them and predicts
every token, as pretraining does: the model meets the markers of the chat format, tools and multiple
choice for the first time. SFT predicts the assistant's own tokens alone: the rows then look like
what the model will meet when people talk to it, and nothing is spent on writing their questions.
Masking is worth it: the original lost it for a month, and got ChatCORE 0.315 -> 0.355 (d23) back
with it. Source: nanochat `scripts/mid_train.py`, `scripts/chat_sft.py`.
"""

import functools
import logging
import pathlib
from collections.abc import Callable

import grain

from nanochat_jax import tasks
from nanochat_jax.checkpoint import store
from nanochat_jax.config.gpt import flops_per_token
from nanochat_jax.config.stages import MidTrain, RLTrain, SFTTrain
from nanochat_jax.data import ledger
from nanochat_jax.data.chats import mid_loader, sft_loader
from nanochat_jax.tokenizer import Tokenizer
from nanochat_jax.train import hooks, sources
from nanochat_jax.train.curriculum import Curriculum, RunContext, loader_rows
from nanochat_jax.train.origin import Origin

log = logging.getLogger(__name__)


def mixture(config: MidTrain | SFTTrain, root: pathlib.Path, split: str) -> tasks.Mixture:
    """The conversations of one split, `train` or `val`."""
    names = config.mixture if split == "train" else config.val_mixture
    stage = "sft" if isinstance(config, SFTTrain) else "mid"
    return tasks.build(names, root, split, stage=stage, task_data=config.task_data or None)


def files(config: MidTrain | SFTTrain | RLTrain, root: pathlib.Path) -> list[pathlib.Path]:
    """The files on this machine that the training rows of a mixture are read from."""
    stage = "mid" if isinstance(config, MidTrain) else "sft"
    task_data = config.task_data or None
    return tasks.files(config.mixture, root, "train", stage=stage, task_data=task_data)


def loader(
    config: MidTrain | SFTTrain, tokenizer: Tokenizer, micro_rows: int
) -> Callable[..., grain.IterDataset]:
    """`mid_loader` or `sft_loader` with the run's rows; takes the items, and options of either."""
    sft = isinstance(config, SFTTrain)
    make = functools.partial(sft_loader, kind=config.packing) if sft else mid_loader
    rows = (tokenizer, micro_rows, config.max_seq_len)
    return lambda items, **kw: make(items, *rows, **kw)


def curriculum(config: MidTrain | SFTTrain, context: RunContext) -> Curriculum:
    """Passes over the mixture, or `num_iterations` steps.

    Raises:
        FileNotFoundError: no data for the mixture.
        ValueError: a mixture without rows, or another one than the resumed run's.
    """
    sft, tokenizer, root = isinstance(config, SFTTrain), context.tokenizer, context.root
    eval_tokens = config.eval_tokens
    if sft and config.eval_steps:
        eval_tokens = config.eval_steps * config.device_batch_size * config.max_seq_len
    train, batches = mixture(config, root, "train"), functools.partial(loader, config, tokenizer)
    if context.recorded:
        ledger.check_mixture(train, context.recorded)
    read = ledger.of_mixture(train, files(config, root), root)
    # Built at the first evaluation and kept: a run that never evaluates needs no such rows.
    validation = functools.cache(lambda: mixture(config, root, "val"))
    val = lambda: batches(config.device_batch_size)(validation())
    epochs = dict(epochs=config.num_epochs) if sft else {}
    rows, steps = batches(context.micro_rows)(train, **epochs), steps_of(config, len(train))
    step = context.micro_batches, context.passes
    chat_scores = (hooks.chat_scores_hook(config, tokenizer, root),) if sft else ()
    return Curriculum(
        summary=f"{len(train):,} rows in the mixture: {' '.join(config.mixture)}",
        steps=steps,
        rows=loader_rows(rows, *step, steps),
        hooks=(
            hooks.bits_per_byte_hook(config, tokenizer, val, eval_tokens),
            *chat_scores,
            hooks.samples_hook(config, tokenizer),
        ),
        figures=lambda common: common | {"Training rows": len(train)},
        data=read | {"micro_rows": context.micro_rows},
        source=sources.chats(train),
        # With adapters a step has not the gradients of the weights, a third of all.
        flops_per_token=0.0 if config.lora_rank else flops_per_token(context.cfg),
    )


def steps_of(config: MidTrain | SFTTrain, rows: int) -> int | None:
    """Optimizer steps; None: until the data have been seen.

    Only padded rows can be counted before they are made: one conversation is one row there.
    """
    if config.num_iterations > 0:
        return config.num_iterations
    if isinstance(config, SFTTrain) and config.packing == "padded":
        return max(1, rows // config.target_examples_per_step) * config.num_epochs
    return None


def warm_optimizer(config: SFTTrain, start: Origin) -> store.Saved | None:
    """The checkpoint whose optimizer state SFT takes over, None where it starts a fresh one.

    Moments that fit the weights already spare the first steps their noise: a small help in the
    original (2026-02-16). A resumed run has a state of its own.
    """
    source = start.source
    if not config.load_optimizer or config.lora_rank or source is None or start.resumed:
        return None
    if source.base is not None:
        log.warning("the optimizer of %s is that of adapters: it begins afresh", source.path)
        return None
    if not source.has_optimizer:
        log.warning("%s holds no optimizer state: it begins afresh", source.path)
        return None
    # Only some recipes keep a second moment for Muon: the two states differ in structure then.
    if bool((source.meta.get("config") or {}).get("muon_beta2")) != bool(config.optim.muon_beta2):
        log.warning("the optimizer of %s is of another recipe: it begins afresh", source.path)
        return None
    return source
