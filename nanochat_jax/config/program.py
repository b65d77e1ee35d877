"""The flags of every program, of eval and of the speedrun, and how a field says what it decides.

A field decides the result of its stage unless its type says otherwise: at the field, so that a new
option cannot be forgotten in a list elsewhere. What stands beside or below a field is its `--help`.
"""

import dataclasses
import enum
import os
from typing import Annotated, Literal, TypeVar

import tyro

from nanochat_jax.config import bounds

T = TypeVar("T")


class FieldKind(enum.Enum):
    """What a field may be other than a part of the result."""

    COSMETIC = "cosmetic"
    PER_CALL = "per call"
    HANDED_ON = "handed on"


# How a run is watched or saved. Another value leaves a finished stage valid, so it is no part of
# a fingerprint: who asks for more evaluations must not have to train again.
Cosmetic = Annotated[T, FieldKind.COSMETIC]
# Cosmetic, and of this call alone: `--resume` does not take it over, since the run may go on
# under another name, on another machine or on another number of devices.
PerCall = Annotated[T, FieldKind.PER_CALL]
# Of the speedrun: where it is named, it stands in every stage that knows it. A key at the top of a
# file reaches the stages by itself, below what their own tables say, so it does not count here.
HandedOn = Annotated[T, FieldKind.HANDED_ON]

LOCAL_RUN = "dummy"  # the original's name for a run that logs to disk alone
Device = Literal["", "cpu", "gpu", "cuda", "tpu", "mps"]
Recipe = Literal["classic", "current", "portable"]
Source = Literal["base", "mid", "sft", "rl"]
Attention = Literal["auto", "cudnn", "blocks", "xla"]
Remat = Literal["auto", "none", "dots", "full"]
Words = Literal["nanochat", "marks"]
OnNan = Literal["stop", "skip"]
ReduceDtype = Literal["auto", "float32", "bfloat16"]
also = lambda *flags: tyro.conf.arg(aliases=flags)


def wandb_run() -> str:
    """The name for wandb where no flag gives one: `$WANDB_RUN`, as in the original."""
    return os.environ.get("WANDB_RUN", LOCAL_RUN)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Processes:
    """One run in several processes, where Slurm, Kubernetes or Open MPI do not say it."""

    coordinator: PerCall[str] = ""
    """HOST:PORT of process 0, with --num-processes and --process-id: one run in several processes
    (docs/several-machines.md); not needed under Slurm, Kubernetes, Open MPI 4"""
    num_processes: PerCall[int] = -1  # processes of the run; 1: alone, whatever started this one
    process_id: PerCall[int] = -1  # number of this one, from 0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Shared:
    """What a program of one stage and the speedrun over all of them both know."""

    config: Cosmetic[str] = ""
    """TOML file of settings (default: configs/cpu.toml on a CPU, configs/d20.toml on GPUs)"""
    model_tag: Annotated[str, also("-g")] = ""
    """name of the checkpoint directory (default: d<depth>, or the deepest there is)"""
    device_type: PerCall[Device] = ""  # cpu, gpu (or cuda), tpu; empty: the best there is
    mesh: PerCall[str] = ""
    """devices: `8` (all on the data axis) or `data=4,fsdp=2`; empty: all of them on data"""
    simulate_devices: PerCall[bool] = False  # make as many virtual CPU devices as the mesh wants


@dataclasses.dataclass(frozen=True, kw_only=True)
class Speedrun(Shared, Processes):
    """Run the whole chain, skip what is done, write the report."""

    fresh: bool = False  # start over: finished stages are trained again
    rl: bool = False  # also the rl stage, after sft
    download: int = 240  # shards to fetch where the config trains on downloaded text; 0: none
    run: str = dataclasses.field(default_factory=wandb_run)
    """name for wandb; `dummy` logs to disk alone"""
    task_data: str = ""  # local folder of task files instead of the Hugging Face hub
    save_every: HandedOn[int | str] = "15m"
    """time or steps between checkpoints, in every stage, where it is named; -1: only at the end"""
    keep: HandedOn[str] = "last=3,best=1"  # steps of a run that stay; of every stage, where named
    on_nan: HandedOn[OnNan] = "stop"
    """at a loss or gradient that is not finite: stop or skip; in every stage, where it is named"""
    strict: HandedOn[bool] = False
    """an evaluation that fails ends the run; otherwise it is told, counted and left out"""
    device_batch_size: HandedOn[int] = 32
    """rows of one micro-batch on one device, in base and mid; sft, rl and bits per byte take no
    more than these. Not named: as each stage says"""
    attention: HandedOn[Attention] = "auto"  # of every stage, where it is named
    remat: HandedOn[Remat] = "auto"  # of every stage, where it is named
    reduce_dtype: HandedOn[ReduceDtype] = "auto"  # of every stage, where it is named
    fp8: HandedOn[bool] = False  # of base training, where it is named
    vocab_size: HandedOn[int] = 65536  # of the tokenizer, where it is named
    pattern: HandedOn[Words] = "nanochat"  # of the tokenizer, where it is named

    def __post_init__(self) -> None:
        bounds.check(self)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Program(Shared):
    """What every program that runs one model knows."""

    dtype: Annotated[Literal["auto", "float32", "bfloat16"], also("-d")] = "auto"
    """compute type; auto: bfloat16 on accelerators, float32 on a CPU and on GPUs without bfloat16
    (before compute capability 8.0, such as T4 and V100)"""
    seed: int = 42  # seed of initial weights, sampling and data order where it has one


@dataclasses.dataclass(frozen=True, kw_only=True)
class Eval(Program, Processes):
    """Score a checkpoint into the report.

    Two commands beside it: `scripts.eval compare A B` of two evaluations, `scripts.eval
    contamination` for questions that stand in the training text; each has a --help.
    """

    source: Annotated[Literal["tokenizer", Source], also("-i")] = "sft"  # what to score
    step: Annotated[int, also("-s")] = -1  # its step; -1: the last
    tasks: Annotated[str, also("-a", "--task-name")] = ""
    """comma-separated (or `|`): core, bpb, sample, probes, ChatCORE, ARC-Easy, ARC-Challenge, MMLU,
    GSM8K, HumanEval, SpellingBee; empty: all that fit the source and have their data"""
    # Greedy, so that a score is the same tomorrow.
    temperature: Annotated[float, also("-t")] = 0.0  # 0: greedy
    max_new_tokens: Annotated[int, also("-m")] = 512  # tokens of an answer
    num_samples: Annotated[int, also("-n")] = 1
    """answers a problem; passed when one is right, and pass@k in the table"""
    top_k: Annotated[int, also("-k")] = 50  # sample among the k likeliest; 0: among all
    batch_size: Annotated[int, also("-b")] = 0
    """prompts of a forward pass and answers written at once, on each device; 0: what suits it"""
    max_problems: Annotated[int, also("-x")] = -1
    """problems of each task, and batches of bits per byte; -1: all"""
    controls: bool = False
    """multiple choice also with its options shuffled and without its question (CORE's without it
    alone): two passes more, which tell whether a score means anything"""
    device_batch_size: int = 32  # rows of a bits-per-byte batch
    split_tokens: int = 20 * 524288  # tokens of each split for bits per byte
    task_data: Cosmetic[str] = ""  # local folder of task files instead of the Hugging Face hub

    def __post_init__(self) -> None:
        bounds.check(self)
        if not self.temperature >= 0:
            raise ValueError(f"temperature is {self.temperature}; set it to 0 (greedy) or more")
