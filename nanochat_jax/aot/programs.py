"""The programs of a run, compiled for cards: the training step of any stage."""

import dataclasses
import functools
import time
from collections.abc import Sequence
from typing import Any

from jax.sharding import Mesh

from nanochat_jax import devices, kernels
from nanochat_jax.aot import hlo, target
from nanochat_jax.aot.cards import Card
from nanochat_jax.config.gpt import GPTConfig
from nanochat_jax.config.resolve import resolve
from nanochat_jax.config.stages import BaseTrain, Stage
from nanochat_jax.train import base, memory, setup


@dataclasses.dataclass(frozen=True)
class Program:
    """A compiled program: its optimised HLO, the bytes it needs on each card, seconds it took to
    compile; `tokens` of a run of it, over all devices."""

    text: str
    peak: int
    seconds: float
    tokens: int

    @functools.cached_property
    def module(self) -> hlo.Module:
        return hlo.parse(self.text)


def settled(stage: str, argv: Sequence[str]) -> tuple[Any, GPTConfig]:
    """A stage's config and the model that its file describes, as from a fresh base directory.

    Flags are the stage's; the model is the one that base training of the same file makes, with
    the vocabulary of the file's tokenizer.
    """
    config = resolve(stage, argv)
    file = [f"--config={config.config}"] if config.config else []
    base_config = config if stage == "base" else resolve("base", file)
    vocabulary = resolve("tokenizer", [*file, f"--recipe={base_config.recipe}"]).vocab_size
    return config, base.model_config(base_config, vocabulary)


def fitted(config: Stage, cfg: GPTConfig, card: Card, mesh: Mesh) -> tuple[Stage, Program]:
    """(the config with what is open settled as on that GPU, its training step): bfloat16 and
    cuDNN's attention where it has them, the first `remat` that fits into the card's pool.

    Raises:
        ValueError: nothing fits, and the message says which batch would; or a card without what
            the config asks for.
    """
    dtype = devices.automatic_dtype(mesh.devices.flat[0])
    gpu = dict(dtype=dtype, attention="cudnn" if dtype == "bfloat16" else kernels.ANYWHERE)
    open_ = {name: value for name, value in gpu.items() if vars(config)[name] == "auto"}
    config = dataclasses.replace(config, **open_)
    if isinstance(config, BaseTrain) and config.fp8:
        kernels.check_fp8(mesh.devices.flat[0])
    program = functools.cache(lambda config: step(config, cfg, mesh))
    sizes = setup.batch_sizes(config, cfg, mesh)
    limit = int(card.pool * memory.USABLE)
    config = memory.choose_remat(config, sizes, lambda tried: program(tried).peak, limit)
    return config, program(config)


def step(config: Stage, cfg: GPTConfig, mesh: Mesh) -> Program:
    """The training step of a config in which nothing is left open."""
    run, state, batch = setup.abstract_run(config, cfg, mesh)
    return compiled(run.lower(state, batch), mesh.size, batch.inputs_ART.size)


def compiled(lowered: Any, devices: int, tokens: int, **options: str) -> Program:
    """What XLA makes of a lowered program for the cards that its arguments lie on."""
    began = time.monotonic()
    made = lowered.compile(compiler_options=target.options(devices) | options)
    return Program(made.as_text(), memory.program_bytes(made), time.monotonic() - began, tokens)
