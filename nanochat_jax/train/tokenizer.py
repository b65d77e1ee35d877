"""The tokenizer stage: documents of the training shards -> `tokenizer/` in the base directory."""

import dataclasses
import itertools
import json
import logging
import pathlib
import time
from collections.abc import Iterator
from typing import Any

import numpy as np

from nanochat_jax import files
from nanochat_jax.checkpoint.load import keep_tokenizer
from nanochat_jax.config import paths, values
from nanochat_jax.config.stages import TokenizerTrain
from nanochat_jax.data import shards
from nanochat_jax.demo import corpus, words
from nanochat_jax.results import TRAINING, Section
from nanochat_jax.tokenizer import SPECIAL_TOKENS, SPLIT_PATTERNS, Tokenizer

log = logging.getLogger(__name__)

RECORD = "train.json"


def fingerprint(config: TokenizerTrain, root: pathlib.Path) -> dict[str, Any]:
    """What decides this stage's result: its settings and the shards it reads."""
    data = _data(config, root)
    read = {"shards": [path.name for path in data.train], "source": data.source}
    return values.fingerprint(config) | read


def done(root: pathlib.Path) -> dict[str, Any] | None:
    """The fingerprint of the tokenizer on disk; None when there is none."""
    record = paths.tokenizer(root) / RECORD
    return json.loads(record.read_text())["fingerprint"] if record.exists() else None


def run(config: TokenizerTrain, root: pathlib.Path) -> Section:
    """Trains, checks a round trip, saves. Returns the section of the report."""
    data = _data(config, root)
    log.info("tokenizer of %s ids from %s; saved in %s", f"{config.vocab_size:,}",
             shards.summary(data), paths.tokenizer(root))  # fmt: skip
    started = time.perf_counter()
    extra = words.tokenizer_extra() if data.source == paths.WORLD_DATA else iter(())
    texts = itertools.chain(documents(data, config.max_chars, config.doc_cap), extra)
    pattern = SPLIT_PATTERNS[config.pattern, config.digits]
    tokenizer = Tokenizer.train(texts, config.vocab_size, pattern)
    seconds = time.perf_counter() - started
    # Before anything is saved: no later stage could be trusted otherwise.
    check_round_trip(tokenizer)
    folder = paths.tokenizer(root)
    if kept := keep_tokenizer(root, tokenizer):
        log.info("%s keep the tokenizer that they were trained with", ", ".join(kept))
    tokenizer.save(folder)
    figures = _figures(tokenizer, seconds)
    # Last, since this record is what makes the stage done.
    record = {"fingerprint": fingerprint(config, root), "figures": figures}
    files.write_json(folder / RECORD, record)
    log.info("tokenizer: %d ids in %.1f s -> %s", tokenizer.get_vocab_size(), seconds, folder)
    return Section(TRAINING["tokenizer"], values.flatten(config), figures)


def _data(config: TokenizerTrain, root: pathlib.Path) -> shards.Shards:
    """What this stage reads of the shards in use."""
    data, most = find_data(root, config.embedded_world), config.num_shards
    if most > 0:
        return shards.with_documents(dataclasses.replace(data, train=data.train[:most]))
    return data


def find_data(root: pathlib.Path, embedded_world: bool) -> shards.Shards:
    """The shards in use; writes the embedded world first where the config asks for it."""
    if embedded_world and paths.data_in_use(root) is None:
        log.info("writing the embedded world to %s", paths.world_data(root))
        corpus.write_world(paths.world_data(root))
    return shards.find_shards(root)


def documents(data: shards.Shards, max_chars: int, doc_cap: int) -> Iterator[str]:
    """Training documents cut to `doc_cap` characters, until `max_chars` are exceeded."""
    total = 0
    for text in itertools.chain.from_iterable(shards.iter_documents(data.train)):
        cropped = text[:doc_cap]  # or a few very long documents would choose the merges
        total += len(cropped)
        yield cropped
        if total > max_chars:
            return


def check_round_trip(tokenizer: Tokenizer) -> None:
    """Raises RuntimeError unless a text of many kinds comes back whole."""
    text = "Hello! I'm 42 years old, isn't it?\n\n\tx = {1: 'a'}; y += 3.14\n"
    text += "你好世界 🌍 naïve çà\r\n"
    back = tokenizer.decode(tokenizer.encode(text))
    if back != text:
        raise RuntimeError(f"the new tokenizer does not give back its text: {back!r} for {text!r}")


def _figures(tokenizer: Tokenizer, seconds: float) -> dict[str, Any]:
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
