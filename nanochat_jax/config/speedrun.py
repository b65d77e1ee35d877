"""The flags of `scripts.speedrun`."""

import dataclasses

from nanochat_jax.config.program import Shared, wandb_run


@dataclasses.dataclass(frozen=True, kw_only=True)
class Speedrun(Shared):
    """Run the whole chain, skip what is done, write the report."""

    fresh: bool = False  # start over: finished stages are trained again
    rl: bool = False  # also the rl stage, after sft
    download: int = 240  # shards to fetch where the config trains on downloaded text; 0: none
    run: str = dataclasses.field(default_factory=wandb_run)
    """name for wandb; `dummy` logs to disk alone"""
    task_data: str = ""  # local folder of task files instead of the Hugging Face hub
