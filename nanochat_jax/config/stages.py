"""The flags of `scripts.train`: one frozen dataclass a stage, named as nanochat's.

Defaults are the classic recipe's; `RECIPES` holds what another recipe changes. Nothing below this
folder asks which recipe it runs: it reads the values. Where a stage repeats a field for another
default, `--help` takes the text from the class above it: from a docstring there, not a comment.
"""

import dataclasses
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from nanochat_jax.config import bounds
from nanochat_jax.config.optim import DEFAULTS, OptimConfig
from nanochat_jax.config.paths import check_tag
from nanochat_jax.config.program import (
    Attention,
    Cosmetic,
    OnNan,
    PerCall,
    Processes,
    Program,
    Recipe,
    ReduceDtype,
    Remat,
    Source,
    Words,
    also,
    wandb_run,
)
from nanochat_jax.config.saving import Cadence, Keep

# Facts, arithmetic, a calendar, an opinion: what a base model knows at a glance.
# Source: nanochat `scripts/base_train.py`.
SAMPLE_PROMPTS = (
    "The capital of France is", "The chemical symbol of gold is",
    "If yesterday was Friday, then tomorrow will be", "The opposite of hot is",
    "The planets of the solar system are:", "My favorite color is", "If 5*x + 3 = 13, then x is",
)  # fmt: skip


@dataclasses.dataclass(frozen=True, kw_only=True)
class Stage(Program, Processes):
    """What every training stage of the model knows."""

    recipe: Recipe = "classic"
    """set of defaults: classic (October 2025), current (July 2026), or portable: classic for
    llama.cpp, ollama and other programs"""
    run: PerCall[str] = dataclasses.field(default_factory=wandb_run)
    """name for wandb; `dummy` logs to disk alone"""
    resume: PerCall[bool] = False  # continue this stage's last checkpoint
    resume_from_step: PerCall[int] = -1
    """continue this stage at the checkpoint of that step; -1: as --resume says"""
    init: PerCall[str] = ""
    """start from this checkpoint directory; its shape wins over flags. In base training the default
    config file is not read then: its rates are another model's"""
    num_iterations: int = -1  # optimizer steps; -1: derived (base) or one pass over the mixture
    device_batch_size: int = 32
    """rows of one micro-batch on one device; where a run goes on: of a pass over the same data"""
    max_seq_len: int = 2048  # tokens of a row
    eval_every: Cosmetic[int] = 250
    """steps between evaluations; -1: never"""
    eval_tokens: Cosmetic[int] = 20 * 524288
    """validation tokens of an evaluation; at most one pass of the split"""
    sample_every: Cosmetic[int] = 2000  # steps between samples; -1: never
    sample_prompts: tuple[str, ...] = SAMPLE_PROMPTS  # texts to continue, greedily, 16 tokens each
    save_every: Cosmetic[int | str] = "15m"
    """time (15m, 90s, 2h) or steps (500) between checkpoints; -1: only at the end"""
    keep: Cosmetic[str] = "last=3,best=1"
    """which of its steps a run keeps: the last, the best by validation, and for good one at each
    so many (every=1000); all: every one. One that a later stage began with stays"""
    init_lr_frac: float = 1.0
    """all learning rates are multiplied by this once"""
    on_nan: Cosmetic[OnNan] = "stop"
    """at a loss or gradient that is not finite, whose update is never made: stop (and save the step
    before it) or skip (go on with the next rows)"""
    strict: PerCall[bool] = False
    """an evaluation that fails ends the run; otherwise it is told, counted and left out"""
    attention: PerCall[Attention] = "auto"
    """how attention is computed: cudnn (bfloat16 on NVIDIA GPUs), blocks (anywhere), xla (all
    scores at once); auto: cudnn where it runs, else blocks"""
    remat: PerCall[Remat] = "auto"
    """what the backward pass computes again to save memory: none; all but products and attention
    (dots); all but attention (full); auto: the first that fits"""
    # Taken over by --resume, as fp8 is: a run that goes on shall round as it did.
    reduce_dtype: Cosmetic[ReduceDtype] = "auto"
    """type in which gradients are summed over devices; auto: the compute type"""
    optim: OptimConfig = OptimConfig()

    def __post_init__(self) -> None:
        bounds.check(self)
        check_tag("--model-tag", self.model_tag)
        Cadence.of(self.save_every)
        Keep.of(self.keep)


@dataclasses.dataclass(frozen=True, kw_only=True)
class TokenizerTrain(Processes):
    """Train the tokenizer on the pretraining shards."""

    config: Cosmetic[str] = ""  # TOML file of settings
    recipe: Recipe = "classic"  # named set of defaults
    device_type: PerCall[str] = ""  # taken and ignored: this stage needs no accelerator
    # The original's default; its own speedrun reads 2 billion, which is what `current` has.
    max_chars: int = 10_000_000_000  # characters to train on
    # So that others may arrive while it trains: its text is the same whichever have. No part of a
    # fingerprint, for what was read is.
    num_shards: Cosmetic[int] = -1
    """train on the first so many shards alone; -1: all that are here"""
    # So that no one document weighs much in the counts.
    doc_cap: int = 10_000  # characters of one document at most
    digits: Literal[1, 2] = 2  # of a number in one token at most; other programs have only 1
    pattern: Words = "nanochat"
    """what a word is: letters alone, or with the marks at them (Hindi, Thai, vowelled Arabic)"""
    vocab_size: int = 65536  # ids in all: bytes, merges and the nine special tokens
    embedded_world: bool = False  # train on the embedded world while base_data/ is empty

    def __post_init__(self) -> None:
        bounds.check(self)


@dataclasses.dataclass(frozen=True, kw_only=True)
class BaseTrain(Stage):
    """Pretrain a model from nothing (or from --init) on documents."""

    depth: int = 20  # layers: the one dial; width, heads, batch and rates follow
    aspect_ratio: int = 64  # width = depth x this, rounded up to a multiple of head_dim
    head_dim: int = 128  # width of one attention head
    reference_kv_heads: int = 0
    """kv heads of the 12-layer model that rates are scaled by; 0: all its heads; --init: those of
    the checkpoint"""
    window_pattern: str = "L"
    """L: full attention, S: short window; repeated over the layers, the last is always L"""
    # 2^19 tokens: where the rates were tuned. Larger models like larger batches: see scaling.py.
    total_batch_size: int = 524288  # tokens of an optimizer step; -1: derived from the horizon
    # 20 tokens a parameter, all of them counted. Source: Chinchilla (arXiv:2203.15556).
    target_param_data_ratio: float = 20.0
    """training tokens per parameter, when num_iterations and target_flops are not given"""
    target_flops: float = -1.0  # training FLOPs, when num_iterations is not given; -1: not used
    loader: Literal["stream", "bestfit"] = "stream"
    """rows cut from one token stream, or whole documents packed best-fit"""
    embedded_world: bool = False  # train on the embedded world while base_data/ is empty
    fp8: Cosmetic[bool] = False
    """multiply the blocks' matrices in 8 bits: for NVIDIA GPUs from H100 on and, as smaller models
    gain nothing, from about 24 layers on; emulated on a CPU, to try it"""
    # The original deals row groups out to its processes, so its order depends on their number.
    loader_ranks: int = 1  # read in the order of the original on this many ranks
    core_metric_every: Cosmetic[int] = 2000  # steps between CORE evaluations; -1: never
    # All of a task is for the end: during training a noisy estimate is enough.
    core_metric_max_per_task: Cosmetic[int] = 500  # problems of a CORE task; -1: all


@dataclasses.dataclass(frozen=True, kw_only=True)
class ChatStage(Stage):
    """What the stages know that go on from a checkpoint, on tasks: mid, sft, rl."""

    source: Source = "base"
    """stage whose checkpoint to start from"""
    step: Annotated[int, also("-s")] = -1  # its step; -1: the last
    mixture: tuple[str, ...] = ()
    """tasks as name[:variant or rows][*repeats]"""
    val_mixture: tuple[str, ...] = ()
    """the same for validation"""
    task_data: Cosmetic[str] = ""  # local folder of task files instead of the Hugging Face hub
    lora_rank: int = 0
    """train two thin matrices of this rank beside each large one (LoRA), not the weights; saved
    small; 0: all weights"""
    lora_optimizer: Literal["muon", "adamw"] = "muon"  # of these matrices
    lora_lr: float = 0.0
    """their learning rate, which init_lr_frac leaves as it is; 0: 0.01, adamw 0.003"""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, unset in (("lora_optimizer", "muon"), ("lora_lr", 0.0)):
            if not self.lora_rank and (value := getattr(self, name)) != unset:
                raise ValueError(f"{name} is {value}, but no adapters are trained; add "
                                 "--lora-rank 8, say, or leave it out")  # fmt: skip


@dataclasses.dataclass(frozen=True, kw_only=True)
class MidTrain(ChatStage):
    """Teach a base model conversations, tools and multiple choice, on every token."""

    source: Literal["base", "mid"] = "base"
    total_batch_size: int = 524288  # tokens of an optimizer step
    eval_every: Cosmetic[int] = 150
    mixture: tuple[str, ...] = (
        "SmolTalk", "MMLU:auxiliary_train", "GSM8K", "identity*2",
        "SimpleSpelling:200000", "SpellingBee:80000",
    )  # fmt: skip
    val_mixture: tuple[str, ...] = ("SmolTalk", "MMLU:5200", "GSM8K:420")


@dataclasses.dataclass(frozen=True, kw_only=True)
class SFTTrain(ChatStage):
    """Finetune on conversations: only the assistant's own tokens are supervised."""

    source: Literal["base", "mid"] = "mid"
    device_batch_size: int = 4
    target_examples_per_step: int = 32  # rows of an optimizer step
    total_batch_size: int = -1  # tokens of a step; above 0 it replaces target_examples_per_step
    # A number and no switch, as the original's flag. Its trials found a small gain (February 2026).
    load_optimizer: Literal[0, 1] = 0  # 1: go on with the checkpoint's optimizer, if it has one
    num_epochs: int = 1  # passes over the mixture, when num_iterations is not given
    packing: Literal["padded", "bestfit"] = "padded"
    """one conversation a row, or several whole ones packed into rows of one length"""
    init_lr_frac: float = 0.02
    eval_every: Cosmetic[int] = 100
    eval_steps: Cosmetic[int] = 100  # micro-batches of an evaluation; 0: as eval_tokens says
    eval_metrics_every: Annotated[Cosmetic[int], also("--chatcore-every")] = 200
    """steps between chat scores, of tasks whose rows are on disk; -1: never"""
    eval_metrics_tasks: Cosmetic[tuple[str, ...]] = ("MMLU", "ARC-Easy")  # ChatCORE tasks to score
    eval_metrics_max_problems: Annotated[Cosmetic[int], also("--chatcore-max-cat")] = 1024
    """problems of one with choices; -1: all"""
    chatcore_max_sample: Cosmetic[int] = 24  # problems of one that is answered in writing; -1: all
    mixture: tuple[str, ...] = (
        "ARC-Easy", "ARC-Challenge", "GSM8K", "SmolTalk:10000", "identity",
        "SimpleSpelling:300", "SpellingBee:300",
    )  # fmt: skip
    val_mixture: tuple[str, ...] = ("SmolTalk",)


@dataclasses.dataclass(frozen=True, kw_only=True)
class RLTrain(ChatStage):
    """Reinforcement learning: replies are sampled, rewarded, and made likelier or less likely."""

    source: Literal["mid", "sft"] = "sft"
    num_epochs: int = 1  # passes over the questions, when num_iterations is not given
    device_batch_size: int = 8
    """rows of one forward and backward pass on one device; the loss is a mean over such passes"""
    examples_per_step: int = 16  # questions of an optimizer step
    num_samples: Annotated[int, also("-n")] = 16  # replies sampled to each question
    max_new_tokens: Annotated[int, also("-m")] = 256  # tokens of a reply
    temperature: Annotated[float, also("-t")] = 1.0  # of sampling
    top_k: Annotated[int, also("-k")] = 50  # sample among the k likeliest; 0: among all
    # The original drops the stop token before the loss: a model is rewarded for what it says and
    # never for ending there.
    learn_stop: bool = True  # train the token that ends a reply too (the original leaves it out)
    # The original samples once after the prefill and hands all rows that token. For comparisons.
    share_first_token: bool = False
    """device_batch_size samples at a time begin with one and the same token, as the original's"""
    init_lr_frac: float = 0.05
    eval_every: Cosmetic[int] = 60
    """steps between evaluations (pass@k); -1: never"""
    eval_examples: Cosmetic[int] = 400  # questions of an evaluation
    eval_samples: Cosmetic[int] = 8  # replies to each: pass@1 to pass@this
    mixture: Annotated[tuple[str, ...], also("--tasks")] = ("GSM8K",)
    """tasks with rewards as name[:variant or rows][*repeats]: GSM8K, SpellingBee, exchanges:sums"""
    val_mixture: tuple[str, ...] = ("GSM8K",)
    """the same for evaluation"""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.temperature <= 0:
            raise ValueError(
                f"temperature is {self.temperature}; set it above 0: greedy replies are all the "
                "same, and none is better than another"
            )


STAGES: dict[str, type] = {
    "tokenizer": TokenizerTrain, "base": BaseTrain, "mid": MidTrain, "sft": SFTTrain,
    "rl": RLTrain,
}  # fmt: skip

# What a recipe changes, program by program, over the defaults above (the optimizer's numbers
# stand in config/optim.py).
RECIPES: dict[str, Mapping[str, Mapping[str, Any]]] = {
    "classic": {},
    "current": {
        # From the original's sweeps of January 2026.
        "tokenizer": dict(vocab_size=32768, max_chars=2_000_000_000),
        # Rows that begin with a document instead of anywhere, at the price of a third of the
        # tokens; mostly short windows, for better bits per byte per FLOP; 12 tokens for each
        # parameter that is multiplied with, from scaling laws fitted again in March 2026.
        "base": dict(
            window_pattern="SSSL", total_batch_size=-1, target_param_data_ratio=12.0,
            loader="bestfit", eval_tokens=80 * 524288,
        ),
        # No stage between: with such rows base models need no midtraining, so SFT takes its mixture
        # over, from base, packed, at nearly full rates and with base's optimizer state.
        "sft": dict(
            source="base", packing="bestfit", init_lr_frac=0.8, device_batch_size=32,
            total_batch_size=524288, load_optimizer=1,
            eval_every=200, eval_steps=0, eval_tokens=40 * 524288,
            mixture=("SmolTalk", "MMLU:auxiliary_train*3", "GSM8K*4"),
            val_mixture=("SmolTalk", "MMLU:5200", "GSM8K:420"),
            eval_metrics_tasks=("ARC-Easy", "ARC-Challenge", "MMLU", "GSM8K", "HumanEval"),
            eval_metrics_max_problems=-1,
        ),
    },
    "portable": {"tokenizer": dict(digits=1)},
}  # fmt: skip


def recipes_of(section: str) -> dict[str, dict[str, Any]]:
    """Recipe name -> what it sets for one program, the optimizer's numbers included."""
    return {
        name: DEFAULTS[name].get(section, {}) | changes.get(section, {})
        for name, changes in RECIPES.items()
    }


def rank_of(config: Stage) -> int:
    """The rank of the adapters that a stage trains; 0: it trains the weights."""
    return config.lora_rank if isinstance(config, ChatStage) else 0


# The stages count in different units, as the original's scripts do: base and mid in tokens, sft in
# rows (padded ones hold different numbers of tokens), rl in questions and replies to each.
def rows_per_step(config: Stage) -> int:
    """Rows of one optimizer step; 1 where the batch is derived later from the horizon."""
    if isinstance(config, RLTrain):
        return config.examples_per_step * config.num_samples
    if isinstance(config, SFTTrain) and config.total_batch_size <= 0:
        return config.target_examples_per_step
    return max(1, config.total_batch_size // config.max_seq_len)


def tokens_per_step(config: Stage) -> int:
    """Tokens of one optimizer step of rows of the full length; -1 or less: derived later."""
    if isinstance(config, RLTrain) or isinstance(config, SFTTrain) and config.total_batch_size <= 0:
        return rows_per_step(config) * config.max_seq_len
    return config.total_batch_size
