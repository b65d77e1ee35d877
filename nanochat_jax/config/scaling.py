"""How long a run is, how large its batch, and what that does to its rates. Pure Python.

The reference is a model of 12 layers at 2^19 tokens a step, where the rates were tuned. One dial,
the depth, and laws that carry what was tuned small to what is too expensive to tune.

Source: nanochat `scripts/base_train.py`, October 2025 (horizons) and July 2026 (the rest).
"""

import dataclasses
import math

from nanochat_jax.config.gpt import GPTConfig, flops_per_token, param_counts, shape_of_depth
from nanochat_jax.config.optim import OptimConfig
from nanochat_jax.config.stages import BaseTrain

REFERENCE_BATCH = 2**19
REFERENCE_DEPTH = 12


@dataclasses.dataclass(frozen=True)
class Plan:
    """A base run: `total_batch_size` counts the tokens of a step, the others those of the run."""

    num_iterations: int
    total_batch_size: int
    flops_per_token: float
    optim: OptimConfig
    target_tokens: int
    reference_tokens: float

    @property
    def total_tokens(self) -> int:
        return self.num_iterations * self.total_batch_size

    @property
    def total_flops(self) -> float:
        return self.flops_per_token * self.total_tokens


def plan(cfg: GPTConfig, config: BaseTrain) -> Plan:
    """The horizon, batch and scaled optimizer of a base run.

    Raises:
        ValueError: no horizon is set, or a batch that is to be derived has no ratio to go by.
    """
    optim, ratio = config.optim, config.target_param_data_ratio
    target = int(ratio * counted_params(cfg, optim))
    dials = config.aspect_ratio, config.head_dim, config.reference_kv_heads
    reference = ratio * counted_params(reference_config(cfg, *dials), optim)
    batch = config.total_batch_size
    if batch <= 0:
        batch = auto_batch_size(target, reference)
    flops = flops_per_token(cfg)
    steps = iterations(config.num_iterations, config.target_flops, target, flops, batch)
    if optim.scale_to_batch:
        optim = scaled(optim, batch, target, reference)
    return Plan(steps, batch, flops, optim, target, reference)


def counted_params(cfg: GPTConfig, optim: OptimConfig) -> int:
    """The parameters whose number sets the horizon."""
    # For a budget of compute, parameters and tokens should grow together: some 20 tokens for each
    # parameter (Chinchilla, arXiv:2203.15556), which classic takes for all of them. Fitted again in
    # 2026, the ratio is the same at every budget only if it counts what computes and leaves lookup
    # tables out (exponents 0.54 and 0.49): then it lies between 10 and 11.
    counts = param_counts(cfg)
    if optim.horizon_params == "all":
        return counts["total"]
    return counts["transformer_matrices"] + counts["lm_head"]


def reference_config(
    cfg: GPTConfig, aspect_ratio: int, head_dim: int, kv_heads: int = 0
) -> GPTConfig:
    """The model at the reference depth: same aspect ratio, head size and vocabulary.

    `kv_heads` 0: as many as it has heads.
    """
    shape = shape_of_depth(REFERENCE_DEPTH, aspect_ratio, head_dim)
    if kv_heads and shape["n_head"] % kv_heads == 0:
        shape["n_kv_head"] = kv_heads
    return dataclasses.replace(cfg, **shape)


def auto_batch_size(target_tokens: float, reference_tokens: float) -> int:
    """Tokens a step, a power of two. Source: batch ~ horizon^0.383, arXiv:2505.13738."""
    _needs_ratio(target_tokens)
    # The longer a run, the less noise its late gradients may have, and the more rows a step can
    # use: at depth 26 a million tokens a step for half a million took the original's run from 2.91
    # to 2.76 hours.
    best = REFERENCE_BATCH * (target_tokens / reference_tokens) ** 0.383
    return 2 ** round(math.log2(best))


def iterations(
    num_iterations: int, target_flops: float, target_tokens: int, flops: float, batch: int
) -> int:
    """Optimizer steps: as given, else by FLOPs, else by tokens; `flops` are per token.

    Raises:
        ValueError: none of the three is set, or the horizon is shorter than a step.
    """
    if num_iterations > 0:
        return num_iterations
    if target_flops > 0:
        steps = round(target_flops / (flops * batch))
    elif target_tokens > 0:
        steps = target_tokens // batch
    else:
        raise ValueError(
            "no horizon: set one of num_iterations, target_flops, target_param_data_ratio above 0"
        )
    if steps < 1:
        raise ValueError(
            f"the horizon is shorter than one step of {batch} tokens; "
            "set total_batch_size lower, or num_iterations"
        )
    return steps


def scaled(
    optim: OptimConfig, batch: int, target_tokens: float, reference_tokens: float
) -> OptimConfig:
    """Rates times the root of the batch ratio; Muon's decay so that its timescale in tokens stays.

    Source: nanochat; for the decay arXiv:2405.13698.
    """
    _needs_ratio(target_tokens)
    # Averaged over k times the rows a gradient has 1/sqrt(k) of the noise, and normalised updates
    # (Adam's, Muon's) may grow by as much.
    factor = math.sqrt(batch / REFERENCE_BATCH)
    rates = "embedding_lr", "unembedding_lr", "scalar_lr", "matrix_lr"
    changes = {rate: vars(optim)[rate] * factor for rate in rates}
    if optim.weight_decay_on == "matrices":
        changes["weight_decay"] = optim.weight_decay * factor * (reference_tokens / target_tokens)
    return dataclasses.replace(optim, **changes)


def _needs_ratio(target_tokens: float) -> None:
    if not target_tokens:
        raise ValueError(
            "target_param_data_ratio is 0, but batch and rates are derived from it; set it to 12, "
            "or set total_batch_size and turn scale_to_batch off"
        )
