"""Writes the embedded world to disk: shards, conversations and probes, the same every time."""

import itertools
import json
import pathlib
import random
import shutil
from collections.abc import Iterable
from typing import Any

from nanochat_jax.data import shards
from nanochat_jax.demo.chats import conversations, probes
from nanochat_jax.demo.documents import documents
from nanochat_jax.demo.facts import make_people
from nanochat_jax.demo.words import tokenizer_extra

__all__ = ["tokenizer_extra", "write_world"]

TRAIN_CHARACTERS = 8_400_000
SHARD_CHARACTERS = 2_100_000
VAL_DOCUMENTS = 1024
CONVERSATIONS = {"mid": 24_000, "sft": 10_000, "val": 400}


def write_world(folder: pathlib.Path, seed: int = 0) -> None:
    """Writes `shard_*.parquet` (the last is validation), `conversations_{mid,sft,val}.jsonl` and
    `probes.jsonl` into a new folder; whole or not at all.

    Raises:
        OSError: the disk is full or not writable.
    """
    part = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    try:
        people = make_people(seed)
        _write_documents(part, documents(people, seed + 1))
        seen: set[str] = set()
        for i, (name, count) in enumerate(CONVERSATIONS.items()):
            made = _unseen(conversations(people, seed + 2 + i), seen)
            _write_lines(part / f"conversations_{name}.jsonl", itertools.islice(made, count))
        examined = (probes(people, seed + 10 + i, s) for i, s in enumerate(("dev", "final")))
        _write_lines(part / "probes.jsonl", itertools.chain.from_iterable(examined))
        shutil.rmtree(folder, ignore_errors=True)
        part.rename(folder)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _write_documents(folder: pathlib.Path, texts: Iterable[str]) -> None:
    """Training shards of about `SHARD_CHARACTERS`, then one of validation documents."""
    source, written, number = iter(texts), 0, 0
    val = list(itertools.islice(source, VAL_DOCUMENTS))
    while written < TRAIN_CHARACTERS:
        shard, size = [], 0
        while size < SHARD_CHARACTERS:
            shard.append(next(source))
            size += len(shard[-1])
        shards.write_shard(folder / f"shard_{number:05d}.parquet", shard)
        written, number = written + size, number + 1
    shards.write_shard(folder / f"shard_{number:05d}.parquet", val)


def _unseen(items: Iterable[dict[str, Any]], seen: set[str]) -> Iterable[dict[str, Any]]:
    """The items whose text no file holds yet, but for short ones, which cannot but recur."""
    for item in items:
        text = json.dumps(item, ensure_ascii=False)
        if text not in seen or len(item["messages"]) == 2:
            seen.add(text)
            yield item


def _write_lines(path: pathlib.Path, items: Iterable[dict[str, Any]]) -> None:
    with path.open("w", encoding="utf-8") as file:
        for item in items:
            file.write(json.dumps(item, ensure_ascii=False) + "\n")


def sample(folder: pathlib.Path, count: int, seed: int = 0) -> list[str]:
    """A few training documents, to look at."""
    texts = list(itertools.islice(shards.iter_documents(shards.list_shards(folder)[:1]), 1))[0]
    return random.Random(seed).sample(texts, count)
