"""Every number of the optimizer and its schedules, for both recipes and every stage.

Two optimizers share the model: Muon takes the matrices of the blocks, where an orthogonalised
update makes every direction of a matrix learn alike; AdamW takes the tables and scalars, where a
row or number stands for itself and orthogonality means nothing. Why each works as it does:
train/muon.py, train/optimizer.py.
"""

import dataclasses
from typing import Any, Literal

from nanochat_jax.config import bounds


@dataclasses.dataclass(frozen=True)
class OptimConfig:
    """Muon for the matrices of the blocks, AdamW for the rest. Defaults: classic, base training."""

    embedding_lr: float = 0.2  # learning rate of the token embedding, at width 768
    unembedding_lr: float = 0.004  # learning rate of the output matrix, at width 768
    matrix_lr: float = 0.02  # learning rate of the blocks' matrices (Muon)
    scalar_lr: float = 0.5  # learning rate of the x0 scalars; residual scalars take a hundredth
    smear_lr: float = 0.2  # learning rate of smear and backout
    weight_decay: float = 0.0  # weight decay of the parameters that `weight_decay_on` names
    weight_decay_on: Literal["embeddings", "matrices"] = "embeddings"
    """embeddings: the two AdamW tables; matrices: Muon's, only where it agrees with the update"""
    embedding_weight_decay: float = 0.0  # further weight decay of the token embedding
    unembedding_weight_decay: float = 0.0  # further weight decay of the output matrix
    value_embed_weight_decay: float = 0.01  # weight decay of the value embeddings
    resid_weight_decay: float = 0.05  # weight decay of the residual scalars
    adam_beta1: float = 0.8  # AdamW's first beta
    x0_beta1: float = 0.96  # the same for the x0 scalars
    embedding_beta2: float = 0.95  # AdamW's second beta for token and value embeddings
    unembedding_beta2: float = 0.95  # AdamW's second beta for the output matrix
    scalar_beta2: float = 0.95  # AdamW's second beta for the scalars
    adam_eps: float = 1e-10  # AdamW's epsilon, outside the root
    muon: Literal["newton_schulz", "polar_express"] = "newton_schulz"
    """iteration that orthogonalises an update"""
    muon_steps: int = 5  # its number of steps
    muon_dtype: Literal["bfloat16", "float32", "compute"] = "bfloat16"
    """its precision; compute: that of the model"""
    muon_equalize_rows: bool = False  # give an update's rows one norm before it is orthogonalised
    muon_renormalize: bool = False  # scale the update to the norm of an exactly orthogonal one
    muon_beta2: float = 0.0  # decay of the second moment that evens out rows or columns; 0: off
    momentum_start: float = 0.85  # Muon's momentum at step 0
    momentum: float = 0.95  # Muon's momentum after its ramp
    momentum_steps: int = 300  # steps of the ramp; 0: none
    momentum_end: float = -1.0  # momentum at the end of the warmdown; negative: it stays
    lr_schedule: Literal["steps", "progress", "linear"] = "steps"
    """warmup, plateau, warmdown by step or by progress; or one line from 1 to 0"""
    warmup_ratio: float = 0.0  # share of the run in which the rates rise
    warmup_steps: int = 0  # steps in which the rates rise; above 0 it replaces warmup_ratio
    warmdown_ratio: float = 0.2  # share of the run in which the rates fall
    final_lr_frac: float = 0.0  # what the rates fall to
    weight_decay_schedule: Literal["constant", "cosine"] = "constant"
    """cosine: Muon's weight decay falls to 0 over the run"""
    # `current` does without: the original found no benefit, at 2 % of the time of a step.
    grad_clip: float = 0.0  # largest norm of the whole gradient; 0: not clipped
    horizon_params: Literal["all", "matrices"] = "all"
    """parameters that target_param_data_ratio counts: all, or the blocks' and the output matrix"""
    scale_to_batch: bool = False
    """base: rates grow with the root of the batch, Muon's weight decay with batch over horizon"""

    def __post_init__(self) -> None:
        bounds.check(self)


# Most of it comes from one bundle of trials in March 2026, which took the original's time to GPT-2
# from 2.02 to 1.80 hours: rates, betas, decays, momentum, warmup and warmdown. 320 runs in January
# had shown before that what is tuned at depth 12 may hurt at depth 20.
CURRENT = dict(
    embedding_lr=0.3, unembedding_lr=0.008,
    weight_decay=0.28,  # at depth 12; scaled by batch and horizon (scale_to_batch)
    weight_decay_on="matrices", embedding_weight_decay=0.001, unembedding_weight_decay=0.01,
    weight_decay_schedule="cosine", embedding_beta2=0.995, unembedding_beta2=0.96,
    muon="polar_express", muon_dtype="compute", muon_beta2=0.9,
    # July 2026: "helped very slightly" at depths 12 and 24, the two together.
    muon_equalize_rows=True, muon_renormalize=True,
    momentum=0.97, momentum_steps=400, momentum_end=0.90,
    warmup_steps=40, warmdown_ratio=0.65, final_lr_frac=0.05,
    horizon_params="matrices", scale_to_batch=True,
)  # fmt: skip
# The later stages run over a mixture whose number of steps is not known before: their rates follow
# the share of the rows seen. None of them clips gradients, which only base training did.
_PROGRESS = dict(lr_schedule="progress", grad_clip=0.0)
_LINEAR = dict(lr_schedule="linear", grad_clip=0.0, momentum_steps=0)
# After base training. No weight decay: by the end of the base run its schedule has brought it to 0.
_LATER = dict(
    CURRENT, weight_decay=0.0, weight_decay_schedule="constant",
    momentum=0.95, momentum_steps=300, momentum_end=-1.0,
    warmup_steps=0, warmdown_ratio=0.5, final_lr_frac=0.0,
)  # fmt: skip
# What `OptimConfig(**...)` takes to be a recipe's optimizer in a stage.
# Source: nanochat `scripts/{base_train,mid_train,chat_sft,chat_rl}.py`, October 2025, July 2026.
CLASSIC = {"base": dict(grad_clip=1.0), "mid": _PROGRESS, "sft": _LINEAR, "rl": _LINEAR}
DEFAULTS: dict[str, dict[str, dict[str, Any]]] = {
    "classic": CLASSIC,
    "current": {
        "base": CURRENT,
        "mid": {**_LATER, **_PROGRESS},
        "sft": {**_LATER, **_PROGRESS, "unembedding_lr": 0.004},
        "rl": {**_LATER, **_LINEAR, "embedding_lr": 0.2, "unembedding_lr": 0.004},
    },
    "portable": CLASSIC,
}
