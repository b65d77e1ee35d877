"""A config for the machine at hand: the model that so many hours of it suit. Estimates, no trials.

What is chosen: the depth whose text, 20 tokens a parameter, comes nearest to what the machine reads
in that time; then as much text as the time allows. Whether a step fits is asked by the run itself.
"""

import dataclasses
import math

from nanochat_jax.config import scaling
from nanochat_jax.config.gpt import (
    GPTConfig,
    flops_per_token,
    param_counts,
    recipe_model_defaults,
    shape_of_depth,
)
from nanochat_jax.config.stages import BaseTrain
from nanochat_jax.train.peaks import peaks

RECIPE = "portable"  # what is trained here shall run in other programs too
DEPTHS = range(4, 33)
# Of a device's peak, with evaluations and saves. The compiled step of depth 5 on a T4 is at 57 % at
# best, one of 20 layers on an H100 at 45 to 57 % (docs/log.md, docs/guide.md).
REACHED = 0.40
# Of the hours; the rest is downloads, compiling, finetuning and scores.
BASE, MID = 0.70, 0.20
CHARACTERS = 4.5  # of English a token, rounded up
SHARD = 250_000_000  # characters of a shard
LARGE = 30e9  # bytes of a device that takes 32 rows


@dataclasses.dataclass(frozen=True)
class Machine:
    """So many devices of one kind, as JAX names it, each with so many bytes (0: not known)."""

    name: str
    devices: int = 1
    memory: int = 0

    @property
    def flops(self) -> float:
        """FLOP/s of all of it that training reaches.

        Raises:
            ValueError: a device whose peak nobody has written down.
        """
        peak = peaks(self.name)[0]
        if math.isinf(peak):
            raise ValueError(
                f"no peak is known of {self.name!r}, so nothing can be planned for it; choose a "
                "file of configs/, such as python -m scripts.speedrun --config "
                "configs/gpu-16gb.toml"
            )
        return REACHED * self.devices * peak


@dataclasses.dataclass(frozen=True)
class Plan:
    """A run of base, mid and sft: the model, tokens of a step, steps of base and of mid."""

    cfg: GPTConfig
    rows: int
    batch: int
    base_steps: int
    mid_steps: int

    @property
    def parameters(self) -> int:
        return param_counts(self.cfg)["total"]

    @property
    def shards(self) -> int:
        """To download: what base reads, and the last one, which validates."""
        return math.ceil(self.base_steps * self.batch * CHARACTERS / SHARD) + 1


def check_hours(hours: float) -> None:
    """Raises ValueError for hours that are no time, on whatever device."""
    if not 0 < hours < math.inf:
        raise ValueError(f"--hours is {hours}; set it to a time above 0, such as 2")


def plan(machine: Machine, hours: float) -> Plan:
    """What suits `hours` of a machine; raises as `Machine.flops`."""
    seconds, flops = 3600 * hours, machine.flops
    tokens = lambda cfg: BASE * seconds * flops / flops_per_token(cfg)
    ratio = lambda cfg: tokens(cfg) / param_counts(cfg)["total"]
    target = BaseTrain().target_param_data_ratio
    cfg = min(map(model, DEPTHS), key=lambda cfg: abs(math.log(ratio(cfg) / target)))
    rows = 32 if machine.memory > LARGE else 16
    batch = batch_size(cfg, tokens(cfg), rows * cfg.sequence_len * machine.devices)
    steps = lambda share: max(1, round(share / BASE * tokens(cfg) / batch))
    return Plan(cfg, rows, batch, steps(BASE), steps(MID))


def model(depth: int) -> GPTConfig:
    """The model of a depth, with a vocabulary and a context that so small a one can use."""
    vocabulary = 8192 if depth < 10 else 32768 if depth < 20 else 65536
    shape = shape_of_depth(depth) | recipe_model_defaults(RECIPE)
    return GPTConfig(vocab_size=vocabulary, sequence_len=1024 if depth < 10 else 2048, **shape)


def batch_size(cfg: GPTConfig, tokens: float, least: int) -> int:
    """Tokens of a step, by the law that `total_batch_size = -1` asks; whole passes of `least`."""
    reference = scaling.reference_config(cfg, BaseTrain().aspect_ratio, BaseTrain().head_dim)
    ratio = BaseTrain().target_param_data_ratio
    law = scaling.auto_batch_size(tokens, ratio * param_counts(reference)["total"])
    return max(1, round(law / least)) * least


def toml(machine: Machine, hours: float, plan: Plan) -> str:
    """The plan as a config file."""
    chats = max(1, 32 // machine.devices)  # rows of each device in a step of sft
    return f"""\
# Planned for {hours:g} hours of {machine.devices} x {machine.name}:
# {summary(plan)}.
# An estimate from FLOPs, {REACHED:.0%} of the peak; nothing was measured.

recipe = "{RECIPE}"
device_batch_size = {plan.rows}
max_seq_len = {plan.cfg.sequence_len}
total_batch_size = {plan.batch}

[tokenizer]
vocab_size = {plan.cfg.vocab_size}
num_shards = {min(plan.shards - 1, 4)}

[base]
depth = {plan.cfg.n_layer}
num_iterations = {plan.base_steps}
scale_to_batch = true
eval_tokens = 1048576
core_metric_every = -1

[mid]
num_iterations = {plan.mid_steps}
eval_tokens = 1048576

[sft]
device_batch_size = {math.gcd(4, chats)}
target_examples_per_step = {chats * machine.devices}
total_batch_size = -1
eval_metrics_every = -1

[eval]
tasks = "bpb,sample"
device_batch_size = {plan.rows}
split_tokens = 1048576

[speedrun]
download = {plan.shards}
"""


def summary(plan: Plan) -> str:
    """The plan in a line."""
    tokens = plan.base_steps * plan.batch
    return (
        f"depth {plan.cfg.n_layer}, {plan.parameters / 1e6:,.0f} M parameters, "
        f"{tokens / 1e6:,.0f} M tokens of text"
    )
