"""The flags of `scripts.eval`, named as nanochat's."""

import dataclasses
from typing import Annotated, Literal

import tyro

from nanochat_jax.config.program import Cosmetic, Program, short


@dataclasses.dataclass(frozen=True, kw_only=True)
class Eval(Program):
    """Score a checkpoint into the report."""

    source: Annotated[Literal["tokenizer", "base", "mid", "sft", "rl"], short("-i")] = "sft"
    """what to score"""
    step: Annotated[int, short("-s")] = -1  # its step; -1: the last
    tasks: Annotated[str, tyro.conf.arg(aliases=["-a", "--task-name"])] = ""
    """comma-separated (or `|`): core, bpb, sample, probes, ChatCORE, ARC-Easy, ARC-Challenge, MMLU,
    GSM8K, HumanEval, SpellingBee; empty: all that fit the source and have their data"""
    # Greedy, so that a score is the same tomorrow.
    temperature: Annotated[float, short("-t")] = 0.0  # 0: greedy
    max_new_tokens: Annotated[int, short("-m")] = 512  # tokens of an answer
    num_samples: Annotated[int, short("-n")] = 1
    """answers a problem; passed when one is right, and pass@k in the table"""
    top_k: Annotated[int, short("-k")] = 50  # sample among the k likeliest; 0: among all
    batch_size: Annotated[int, short("-b")] = 0
    """prompts of a forward pass and answers written at once, on each device; 0: what suits it"""
    max_problems: Annotated[int, short("-x")] = -1
    """problems of each task, and batches of bits per byte; -1: all"""
    device_batch_size: int = 32  # rows of a bits-per-byte batch
    split_tokens: int = 20 * 524288  # tokens of each split for bits per byte
    task_data: Cosmetic[str] = ""  # local folder of task files instead of the Hugging Face hub
