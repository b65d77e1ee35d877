"""Writes the embedded world to disk: shards, conversations and probes, the same every time."""

import itertools
import json
import pathlib
from collections.abc import Iterable, Iterator
from typing import Any

from nanochat_jax.config import paths
from nanochat_jax.data import shards
from nanochat_jax.demo.chats import conversations
from nanochat_jax.demo.documents import documents
from nanochat_jax.demo.examination import probes
from nanochat_jax.demo.facts import make_people
from nanochat_jax.files import whole_folder, write_json_lines

TRAIN_SHARDS = 4
SHARD_CHARACTERS = 2_100_000
VAL_DOCUMENTS = 1024
CONVERSATIONS = {"mid": 27_000, "sft": 10_000, "val": 400}


def write_world(folder: pathlib.Path, seed: int = 0) -> None:
    """Writes `shard_*.parquet` (the last is validation), `conversations_{mid,sft,val}.jsonl` and
    `probes.jsonl` into a new folder; whole or not at all.

    Raises:
        OSError: the disk is full or not writable.
    """
    people = make_people(seed)
    with whole_folder(folder) as part:
        # Validation is drawn first: however much training text there is, it stays the same.
        texts = documents(people, seed + 1)
        val = list(itertools.islice(texts, VAL_DOCUMENTS))
        train = itertools.islice(shards.cut(texts, SHARD_CHARACTERS), TRAIN_SHARDS)
        for number, shard in enumerate([*train, val]):
            shards.write_shard(part / shards.shard_name(number), shard)
        seen: set[str] = set()
        for i, (name, count) in enumerate(CONVERSATIONS.items()):
            made = itertools.islice(_unseen(conversations(people, seed + 2 + i), seen), count)
            write_json_lines(part / paths.world_conversations(part, name).name, made)
        examination = [*probes(people, seed + 10, "dev"), *probes(people, seed + 11, "final")]
        write_json_lines(part / "probes.jsonl", examination)


def _unseen(items: Iterable[dict[str, Any]], seen: set[str]) -> Iterator[dict[str, Any]]:
    """The items whose text no file holds yet, but for short ones, which cannot but recur."""
    for item in items:
        text = json.dumps(item, ensure_ascii=False)
        if text not in seen or len(item["messages"]) == 2:
            seen.add(text)
            yield item
