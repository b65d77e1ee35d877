"""The tokenizer stage: documents of the training shards -> `tokenizer/` in the base directory."""

import itertools
import json
import logging
import pathlib
import time
from collections.abc import Iterator
from typing import Any

import numpy as np

from nanochat_jax.config import values as config_values
from nanochat_jax.config.paths import base_dir
from nanochat_jax.config.stages import TokenizerTrain
from nanochat_jax.data import shards
from nanochat_jax.demo import corpus, words
from nanochat_jax.tokenizer import SPECIAL_TOKENS, Tokenizer

log = logging.getLogger(__name__)

RECORD = "train.json"


def fingerprint(config: TokenizerTrain) -> dict[str, Any]:
    """What decides this stage's result: its settings and the shards it reads."""
    data = find_data(base_dir(), config.embedded_world)
    values = config_values.fingerprint(config)
    values.pop("device_type", None)
    values["shards"] = [p.name for p in data.train]
    return values | {"source": data.source}


def done(root: pathlib.Path) -> dict[str, Any] | None:
    """The fingerprint of the tokenizer on disk; None when there is none."""
    record = root / "tokenizer" / RECORD
    return json.loads(record.read_text())["fingerprint"] if record.exists() else None


def run(config: TokenizerTrain) -> tuple[str, list[Any]]:
    """Trains, checks a round trip, saves. Returns the section of the report."""
    root = base_dir()
    data = find_data(root, config.embedded_world)
    started = time.perf_counter()
    extra = words.tokenizer_extra() if data.source == "world_data" else iter(())
    texts = itertools.chain(documents(data, config.max_chars, config.doc_cap), extra)
    tokenizer = Tokenizer.train(texts, config.vocab_size)
    seconds = time.perf_counter() - started
    check_round_trip(tokenizer)
    folder = root / "tokenizer"
    tokenizer.save(folder)
    figures = _figures(config, tokenizer, seconds)
    record = {"fingerprint": fingerprint(config), "figures": figures}
    (folder / RECORD).write_text(json.dumps(record, indent=1))
    log.info("tokenizer: %d ids in %.1f s -> %s", tokenizer.get_vocab_size(), seconds, folder)
    return "Tokenizer training", [config_values.flatten(config), figures]


def find_data(root: pathlib.Path, embedded_world: bool) -> shards.Shards:
    """The shards in use; writes the embedded world first where the config asks for it."""
    if embedded_world and not any((root / "base_data").glob("*.parquet")):
        world = root / "world_data"
        if not any(world.glob("*.parquet")):
            log.info("writing the embedded world to %s", world)
            corpus.write_world(world)
    return shards.find_shards(root)


def documents(data: shards.Shards, max_chars: int, doc_cap: int) -> Iterator[str]:
    """Training documents cut to `doc_cap` characters, until `max_chars` are exceeded."""
    total = 0
    for texts in shards.iter_documents(data.train):
        for text in texts:
            cropped = text[:doc_cap]
            total += len(cropped)
            yield cropped
            if total > max_chars:
                return


def check_round_trip(tokenizer: Tokenizer) -> None:
    """Raises RuntimeError unless a text of many kinds comes back whole."""
    text = (
        "Hello! I'm 42 years old, isn't it?\n\n\tx = {1: 'a'}; y += 3.14\n你好世界 🌍 naïve çà\r\n"
    )
    back = tokenizer.decode(tokenizer.encode(text))
    if back != text:
        raise RuntimeError(f"the new tokenizer does not give back its text: {back!r} for {text!r}")


def _figures(config: TokenizerTrain, tokenizer: Tokenizer, seconds: float) -> dict[str, Any]:
    sizes = np.asarray(tokenizer.token_bytes())
    sizes = sizes[sizes > 0].astype(np.float64)
    return {
        "train_time": seconds,
        "num_special_tokens": len(SPECIAL_TOKENS),
        "token_bytes_min": int(sizes.min()),
        "token_bytes_max": int(sizes.max()),
        "token_bytes_mean": float(sizes.mean()),
        "token_bytes_std": float(sizes.std(ddof=1)),
        "hash": tokenizer.hash,
    }
