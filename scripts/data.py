"""Text to train on: `python -m scripts.data download|add|list|verify|identity`."""

import dataclasses
import logging
import os
import pathlib
import sys
from typing import Annotated

import tyro

from nanochat_jax.config.errors import friendly_errors
from nanochat_jax.config.flags import check
from nanochat_jax.config.paths import base_dir
from nanochat_jax.config.stages import Recipe


@dataclasses.dataclass(frozen=True)
class Download:
    """Fetch pretraining shards into base_data/ (those that are there are kept)."""

    num_files: Annotated[int, tyro.conf.arg(aliases=["-n"])] = -1
    """the first so many shards; -1: all"""
    num_workers: Annotated[int, tyro.conf.arg(aliases=["-w"])] = 4
    """downloads at a time"""
    recipe: Recipe = "classic"
    """classic: FineWeb-Edu; current: ClimbMix"""
    base_url: str = ""
    """another server with the same file names"""


@dataclasses.dataclass(frozen=True)
class Add:
    """Import texts of your own: parquet (column text), JSONL ("text"), text files; .gz; folders.

    A text file becomes documents of about 2,000 characters, cut at blank lines. One document in
    fifty validates, chosen by its hash: adding more later moves none.
    """

    paths: tyro.conf.Positional[tuple[str, ...]]
    """files or folders"""
    conversations: bool = False
    """they are chats: nanochat's JSONL (a list of messages a line) or {"messages": [...]}"""


@dataclasses.dataclass(frozen=True)
class List:
    """Show the shards in use."""


@dataclasses.dataclass(frozen=True)
class Verify:
    """Read every document of every shard; damage is named by file, row group and row."""


@dataclasses.dataclass(frozen=True)
class Identity:
    """Write conversations in which the model says who it is; `--mixture ... identity` trains them.

    Without --endpoint they are made of ready phrases; with it a larger model writes them (its key:
    $OPENAI_API_KEY). A file that is there is extended to --count, and an interrupted run goes on.
    """

    name: str
    """what the model calls itself"""
    facts: str
    """file of facts, one a line: `creator: Ada`, or a sentence as the model would say it"""
    endpoint: str = ""
    """server of OpenAI's chat completions, e.g. http://127.0.0.1:8000/v1"""
    model: str = ""
    """the server's name of the model (default: its only one)"""
    count: int = 1000
    """conversations in the file at the end"""
    out: str = ""
    """the file (default: identity_conversations.jsonl in the base directory)"""
    fresh: bool = False
    """throw away a file that is there"""
    num_workers: Annotated[int, tyro.conf.arg(aliases=["-w"])] = 4
    """requests at a time"""
    temperature: Annotated[float, tyro.conf.arg(aliases=["-t"])] = 1.0
    """of the writing model"""
    max_tokens: int = 0
    """of a reply of the writing model (0: its server decides)"""
    seed: int = 0
    """another seed makes other conversations"""


COMMANDS = {
    "download": Download, "add": Add, "list": List, "verify": Verify, "identity": Identity,
}  # fmt: skip


def main(argv: list[str]) -> int:
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)
    with friendly_errors():
        if argv and argv[0] in COMMANDS:
            check(argv[1:], COMMANDS[argv[0]])
        command = tyro.extras.subcommand_cli_from_dict(
            COMMANDS, prog="scripts.data", description=__doc__, args=argv
        )
        return RUN[type(command)](command)


def download(command: Download) -> int:
    from nanochat_jax.data import download as fetch

    root, url = base_dir(), command.base_url or None
    workers = command.num_workers
    count = fetch.shards(
        root, command.num_files, recipe=command.recipe, workers=workers, base_url=url
    )
    print(
        f"{count} shards in {root / 'base_data'}; next: python -m scripts.train --stage tokenizer"
    )
    return 0


def add(command: Add) -> int:
    from nanochat_jax.data import importer

    if not command.paths:
        raise ValueError("name files or folders: python -m scripts.data add PATH...")
    paths = [pathlib.Path(p).expanduser() for p in command.paths]
    run = importer.add_conversations if command.conversations else importer.add_documents
    done, kind = run(base_dir(), paths), "conversations" if command.conversations else "documents"
    print(
        f"{done.files} file(s): {done.train} {kind} to train on, {done.val} to validate, "
        f"{done.duplicates} known before and dropped; in {base_dir()}"
    )
    return 0


def show(_: List) -> int:
    from nanochat_jax.data import shards

    found = shards.find_shards(base_dir())
    print(f"{found.source}:")
    for path in (*found.train, found.val):
        with shards.open_shard(path) as file:
            rows = file.metadata.num_rows
        split = "val" if path == found.val else "train"
        print(
            f"  {path.name}  {split:5}  {rows:>9,} documents  {path.stat().st_size / 1e6:8.1f} MB"
        )
    return 0


def verify(_: Verify) -> int:
    from nanochat_jax.data import shards

    found = shards.find_shards(base_dir())
    damaged = 0
    for path in (*found.train, found.val):
        try:
            count = sum(len(texts) for texts in shards.iter_documents([path]))
            print(f"  {path.name}  {count:,} documents, all readable")
        except ValueError as error:
            damaged += 1
            print(f"  {path.name}  DAMAGED: {error}")
    return 1 if damaged else 0


def identity(command: Identity) -> int:
    from nanochat_jax.identity import make
    from nanochat_jax.identity.endpoint import Endpoint
    from nanochat_jax.identity.facts import read_identity

    who = read_identity(command.name, pathlib.Path(command.facts).expanduser())
    default = base_dir() / "identity_conversations.jsonl"
    path = pathlib.Path(command.out).expanduser() if command.out else default
    settings = {"seed": command.seed, "fresh": command.fresh}
    if command.endpoint:
        key = os.environ.get("OPENAI_API_KEY")
        limits = {"temperature": command.temperature, "max_tokens": command.max_tokens}
        endpoint = Endpoint(command.endpoint, command.model, key, **limits)
        workers = command.num_workers
        made = make.from_endpoint(path, who, command.count, endpoint, workers=workers, **settings)
    else:
        made = make.from_templates(path, who, command.count, **settings)
    print(made.summary(command.count))
    print(f"{path}: {made.total} conversations about {who.name} (facts: {len(who.facts)})")
    return 0


RUN = {Download: download, Add: add, List: show, Verify: verify, Identity: identity}

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
