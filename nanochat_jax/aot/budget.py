"""What a compiled training step may take, and what one may not hold at all."""

import dataclasses

from nanochat_jax.aot import audit
from nanochat_jax.aot.cards import Card
from nanochat_jax.aot.programs import Program
from nanochat_jax.config.gpt import GPTConfig
from nanochat_jax.config.stages import Stage
from nanochat_jax.models.loss import tile_rows


@dataclasses.dataclass(frozen=True, kw_only=True)
class Budget:
    """Of each card: bytes / 1e9 at the peak, bytes / 1e9 that it sends to others in a step."""

    peak_gb: float
    sent_gb: float = 0.0
    in_loop: int = 0  # exchanges inside of loops: for fsdp, which gathers layer by layer
    xla_remat: int = 0  # instructions that XLA computes twice because it thinks memory will not do
    float8: int = 0  # products with both operands in eight bits, at least


def faults(
    program: Program, budget: Budget, config: Stage, cfg: GPTConfig, card: Card
) -> list[str]:
    """What is wrong with a training step, a line each; nothing for one that keeps its budget."""
    found = [*_memory(program, budget, card), *_traffic(program, budget)]
    return found + _buffers(program, config, cfg) + _kernels(program, budget, cfg)


def _memory(program: Program, budget: Budget, card: Card) -> list[str]:
    peak, pool = program.peak / 1e9, card.pool / 1e9
    twice = audit.rematerialised(program.module)
    return [
        *([f"peak {peak:.2f} GB, budget {budget.peak_gb} GB"] if peak > budget.peak_gb else []),
        *([f"peak {peak:.2f} GB, the pool holds {pool:.2f} GB"] if peak > pool else []),
        *([f"XLA computes twice: {twice}"] if len(twice) > budget.xla_remat else []),
    ]


def _traffic(program: Program, budget: Budget) -> list[str]:
    sent = audit.sent(program.module) / 1e9
    inside = [c.name for c in audit.collectives(program.module) if c.in_loop]
    return [
        *([f"sends {sent:.2f} GB, budget {budget.sent_gb} GB"] if sent > budget.sent_gb else []),
        *([f"exchanges in a loop: {inside}"] if len(inside) > budget.in_loop else []),
    ]


def _buffers(program: Program, config: Stage, cfg: GPTConfig) -> list[str]:
    T = min(config.max_seq_len, cfg.sequence_len)
    tile = tile_rows(config.device_batch_size * T, cfg.vocab_size)
    wide = audit.wide_logits(program.module, cfg.vocab_size, max(tile, cfg.n_embd))
    # A model as wide as its rows are long has weights that look like scores.
    square = [] if T in (cfg.n_embd, 4 * cfg.n_embd) else audit.squares(program.module, T)
    return [
        *([f"scores of all tokens with all: {square}"] if square else []),
        *([f"float32 logits of more than a tile of {tile} tokens: {wide}"] if wide else []),
    ]


def _kernels(program: Program, budget: Budget, cfg: GPTConfig) -> list[str]:
    calls, float8 = audit.attention_calls(program.module), audit.float8_products(program.module)
    wanted = (cfg.n_layer, cfg.n_layer)
    return [
        *([f"attention calls {calls}, expected {wanted}"] if calls != wanted else []),
        *([f"{float8} float8 products, at least {budget.float8}"] * (float8 < budget.float8)),
    ]
