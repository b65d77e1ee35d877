"""The flags that every program has, and how a field says what it decides.

A field decides the result of its stage unless its type says otherwise: at the field, so that a new
option cannot be forgotten in a list elsewhere. What stands beside or below a field is its `--help`.
"""

import dataclasses
import enum
import os
from typing import Annotated, Literal, TypeVar

import tyro

T = TypeVar("T")


class FieldKind(enum.Enum):
    """What a field may be other than a part of the result."""

    COSMETIC = "cosmetic"
    PER_CALL = "per call"


# How a run is watched or saved. Another value leaves a finished stage valid, so it is no part of
# a fingerprint: who asks for more evaluations must not have to train again.
Cosmetic = Annotated[T, FieldKind.COSMETIC]
# Cosmetic, and of this call alone: `--resume` does not take it over, since the run may go on
# under another name, on another machine or on another number of devices.
PerCall = Annotated[T, FieldKind.PER_CALL]

Device = Literal["", "cpu", "gpu", "cuda", "tpu", "mps"]
Recipe = Literal["classic", "current"]
short = lambda flag: tyro.conf.arg(aliases=[flag])
flat = tyro.conf.arg(name="")


def wandb_run() -> str:
    """The name for wandb where no flag gives one: `$WANDB_RUN`, as in the original."""
    return os.environ.get("WANDB_RUN", "dummy")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Shared:
    """What a program of one stage and the speedrun over all of them both know."""

    config: Cosmetic[str] = ""
    """TOML file of settings (default: configs/cpu.toml on a CPU, configs/d20.toml on GPUs)"""
    model_tag: Annotated[str, short("-g")] = ""
    """name of the checkpoint directory (default: d<depth>, or the deepest there is)"""
    device_type: PerCall[Device] = ""  # cpu, gpu (or cuda), tpu; empty: the best there is
    mesh: PerCall[str] = ""
    """devices: `8` (all on the data axis) or `data=4,fsdp=2`; empty: all of them on data"""
    simulate_devices: PerCall[bool] = False  # make as many virtual CPU devices as the mesh wants


@dataclasses.dataclass(frozen=True, kw_only=True)
class Program(Shared):
    """What every program that runs one model knows."""

    dtype: Annotated[Literal["auto", "float32", "bfloat16"], short("-d")] = "auto"
    """compute type; auto: bfloat16 on accelerators, float32 on a CPU"""
    seed: int = 42  # seed of initial weights, sampling and data order where it has one
