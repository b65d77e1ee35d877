"""The flags of `scripts.data download|add|list|verify|trace|identity|templates|clean`."""

import dataclasses
from typing import Annotated, Literal

import tyro

from nanochat_jax.config import bounds
from nanochat_jax.config.program import Recipe, also


@dataclasses.dataclass(frozen=True)
class Download:
    """Fetch pretraining shards into base_data/ (those that are there are kept)."""

    num_files: Annotated[int, also("-n")] = -1  # the first so many shards; -1: all
    num_workers: Annotated[int, also("-w")] = 4  # downloads at a time
    recipe: Recipe = "classic"  # classic, portable: FineWeb-Edu; current: ClimbMix
    base_url: str = ""  # another server with the same file names
    mix: bool = False  # also into a base_data/ that holds other text: train on both

    def __post_init__(self) -> None:
        bounds.check(self)


@dataclasses.dataclass(frozen=True)
class AddTexts:
    """Import texts of your own: parquet (column text), JSONL ("text"), text files; .gz; folders.

    A text file becomes documents of about 2,000 characters, cut at blank lines. One document in
    fifty validates, chosen by its hash: adding more later moves none.
    """

    paths: tyro.conf.Positional[tuple[str, ...]]  # files or folders
    conversations: bool = False
    """they are chats: nanochat's JSONL (a list of messages a line) or {"messages": [...]}"""


@dataclasses.dataclass(frozen=True)
class ListShards:
    """Show the shards in use."""


@dataclasses.dataclass(frozen=True)
class VerifyShards:
    """Read every document of every shard; damage is named by file, row group and row.

    A shard whose size or SHA-256 is not that of manifest.json, which download and add write, is
    named too.
    """

    write: bool = False  # add the digests of shards that have none: those put there by hand


@dataclasses.dataclass(frozen=True)
class Trace:
    """Show which documents or conversations were in the rows of a training step.

    They are read again as the run's loader read them, from the last checkpoint before that step.
    """

    step: int  # as metrics.jsonl numbers it
    stage: Literal["base", "mid", "sft"] = "base"  # whose run
    row: int = -1  # one row of the step; -1: all
    model_tag: Annotated[str, also("-g")] = ""  # name of its checkpoint directory


@dataclasses.dataclass(frozen=True)
class MakeIdentity:
    """Write conversations in which the model says who it is; `--mixture ... identity` trains them.

    Without --endpoint they are made of ready phrases; with it a larger model writes them. A file
    that is there is extended to --count, and an interrupted run goes on.
    """

    name: str  # what the model calls itself
    facts: str  # file of facts, one a line: `creator: Ada`, or a sentence as the model would say it
    templates: str = ""  # its words in another language: a file that `templates` wrote, translated
    endpoint: str = ""  # server of OpenAI's chat completions, e.g. http://127.0.0.1:8000/v1
    key_variable: str = ""
    """variable that holds the server's key; else $OPENAI_API_KEY goes to OpenAI's servers and to
    this machine alone. No key goes further than this machine without https"""
    model: str = ""  # the server's name of the model (default: its only one)
    count: int = 1000  # conversations in the file at the end
    out: str = ""  # the file (default: identity_conversations.jsonl in the base directory)
    fresh: bool = False  # begin anew; a file that is there is kept as FILE.old
    num_workers: Annotated[int, also("-w")] = 4  # requests at a time
    temperature: Annotated[float, also("-t")] = 1.0  # of the writing model
    max_tokens: int = 0  # of a reply of the writing model (0: its server decides)
    seed: int = 0  # another seed makes other conversations

    def __post_init__(self) -> None:
        bounds.check(self)


@dataclasses.dataclass(frozen=True)
class WriteTemplates:
    """Write all words of identity conversations into one file, to be translated.

    `scripts.data identity --templates FILE` makes conversations of it. What the programs and the
    page say stays English.
    """

    out: str  # the file, such as my-language.toml


@dataclasses.dataclass(frozen=True)
class Clean:
    """Show what killed programs left on disk, with sizes; --yes removes it.

    Half-written files and folders, replaced and damaged ones, and answers to evaluations of steps
    that are gone. Nothing of a run, an export or data in use is touched, nor what was written to
    within the last hour. Earlier runs that a new one moved aside are whole, and none of this:
    `scripts.checkpoints` lists and prunes them.
    """

    paths: tyro.conf.Positional[tuple[str, ...]] = ()
    """folders of exports to look into as well; the base directory always"""
    yes: bool = False  # remove what is shown


COMMANDS: dict[str, type] = {
    "download": Download, "add": AddTexts, "list": ListShards, "verify": VerifyShards,
    "trace": Trace, "identity": MakeIdentity, "templates": WriteTemplates, "clean": Clean,
}  # fmt: skip
