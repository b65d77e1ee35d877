"""The flags of the commands of `scripts.eval`: compare, contamination."""

import dataclasses
from typing import Annotated

import tyro

from nanochat_jax.config import bounds
from nanochat_jax.config.program import Source, also


@dataclasses.dataclass(frozen=True)
class Compare:
    """Two evaluations of the same questions: differences, their intervals, who got what right."""

    a: tyro.conf.Positional[str]  # folder of answers, or its name in the base directory's eval/
    b: tyro.conf.Positional[str]  # the other


@dataclasses.dataclass(frozen=True, kw_only=True)
class Contamination:
    """Look for the questions of an evaluation in all that a model was trained on, into the report.

    What that was its checkpoints say, of every stage: shards up to the place that the run had come
    to, and the chats. Questions share so many words in a row with it, or do not; the score of the
    others stands beside that of all where `scripts.eval` has kept the answers.
    """

    source: Annotated[Source, also("-i")] = "sft"  # stage of the model
    model_tag: Annotated[str, also("-g")] = ""  # its tag; empty: the deepest
    step: Annotated[int, also("-s")] = -1  # its step; -1: the last
    tasks: Annotated[str, also("-a", "--task-name")] = ""
    """comma-separated: core, ChatCORE, probes, or tasks of ChatCORE; empty: all that are here"""
    ngram: int = 13  # words in a row; shorter questions are looked for whole, and counted apart
    max_problems: Annotated[int, also("-x")] = -1  # of each task, as for its evaluation; -1: all
    task_data: str = ""  # local folder of task files instead of the Hugging Face hub
    threads: int = 0  # that read and look at a time; 0: one for each core

    def __post_init__(self) -> None:
        bounds.check(self)


COMMANDS: dict[str, type] = {"compare": Compare, "contamination": Contamination}
