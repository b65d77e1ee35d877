"""Training and encoding speed of our tokenizer and of its peers, on one text, in one go.

    python bench/tokenizer.py [--vocab-size 32768] [--megabytes 50] [shard.parquet ...]

Without shards the embedded world is the text. Peers: Hugging Face `tokenizers`, and `rustbpe` and
`tiktoken` where they are installed. Their ids are compared with ours before anything is timed. The
last line is one JSON object.
"""

import argparse
import importlib
import json
import os
import pathlib
import platform
import tempfile
import time
from collections.abc import Callable, Iterator

import pyarrow.parquet as pq
import tokenizers

from nanochat_jax.tokenizer import SPLIT_PATTERN, Tokenizer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("shards", nargs="*", type=pathlib.Path)
    parser.add_argument("--vocab-size", type=int, default=32768)
    parser.add_argument("--megabytes", type=float, default=50)
    args = parser.parse_args()
    texts = read(args.shards, args.megabytes * 1e6)
    megabytes = sum(len(text.encode()) for text in texts) / 1e6
    tokenizer, train_s = timed(lambda: Tokenizer.train(texts, args.vocab_size))
    training = {"ours": train_s} | train_peers(texts, tokenizer)
    # Enough text for steady figures, little enough that the slowest peer is done soon.
    sample, size = texts[:4000], sum(len(text.encode()) for text in texts[:4000]) / 1e6
    encoding = {name: size / best(run) for name, run in encoders(tokenizer, sample)}
    result = {
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "text_megabytes": round(megabytes, 1),
        "vocab_size": tokenizer.get_vocab_size(),
        "train_seconds": training,
        "encode_megabytes_per_s": encoding,
    }
    for name, seconds in training.items():
        print(f"train   {name:24} {seconds:8.2f} s      {seconds / train_s:6.2f} x ours")
    for name, speed in encoding.items():
        print(
            f"encode  {name:24} {speed:8.1f} MB/s   {speed / encoding['ours, batch']:6.2f} x ours"
        )
    print(json.dumps(result))


def read(shards: list[pathlib.Path], limit: float) -> list[str]:
    """Documents until `limit` characters are reached."""
    with tempfile.TemporaryDirectory() as folder:
        if not shards:
            from nanochat_jax.demo import corpus

            corpus.write_world(pathlib.Path(folder))
            shards = sorted(pathlib.Path(folder).glob("*.parquet"))
        texts, total = [], 0
        for text in (text for shard in shards for text in pq.read_table(shard)["text"].to_pylist()):
            texts.append(text)
            total += len(text)
            if total > limit:
                break
    return texts


def train_peers(texts: list[str], tokenizer: Tokenizer) -> dict[str, float]:
    """Seconds of each installed peer for the same vocabulary."""
    seconds = {}
    ordinary = len(tokenizer.mergeable_ranks)
    if rustbpe := optional("rustbpe"):
        peer = rustbpe.Tokenizer()
        train = lambda: peer.train_from_iterator(iter(texts), ordinary, pattern=SPLIT_PATTERN)
        seconds["rustbpe"] = timed(train)[1]
        theirs = {bytes(token): rank for token, rank in peer.get_mergeable_ranks()}
        assert theirs == tokenizer.mergeable_ranks, "rustbpe learnt other merges"
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=ordinary,
        show_progress=False,
        initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
    )
    fresh = tokenizers.Tokenizer(tokenizers.models.BPE())
    fresh.pre_tokenizer = tokenizer.to_huggingface().pre_tokenizer
    seconds["tokenizers"] = timed(lambda: fresh.train_from_iterator(iter(texts), trainer))[1]
    return seconds


def encoders(
    tokenizer: Tokenizer, texts: list[str]
) -> Iterator[tuple[str, Callable[[], list[list[int]]]]]:
    """(name, encode every text to ids) of ours and each installed peer; their ids are compared."""
    expected = tokenizer.encode(texts)
    huggingface = tokenizer.to_huggingface()
    huggingface.encode_special_tokens = True
    runs = {
        "ours, batch": lambda: tokenizer.encode(texts),
        "ours, one by one": lambda: [tokenizer.encode(text) for text in texts],
        "tokenizers, batch": lambda: [
            row.ids for row in huggingface.encode_batch(texts, add_special_tokens=False)
        ],
    }
    if tiktoken := optional("tiktoken"):
        theirs = tiktoken.Encoding(
            "rustbpe",
            pat_str=tokenizer.pattern,
            mergeable_ranks=tokenizer.mergeable_ranks,
            special_tokens=tokenizer.special_tokens,
        )
        runs["tiktoken, batch"] = lambda: theirs.encode_ordinary_batch(texts, num_threads=8)
        runs["tiktoken, one by one"] = lambda: [theirs.encode_ordinary(text) for text in texts]
    for name, run in runs.items():
        assert run() == expected, f"{name}: other ids than ours"
        yield name, run


def optional(name: str):
    """The module, or None with a word on how to get it."""
    try:
        return importlib.import_module(name)
    except ImportError:
        print(f"{name} is not installed; `pip install {name}` adds it to the comparison")
        return None


def timed(run: Callable):
    start = time.perf_counter()
    result = run()
    return result, time.perf_counter() - start


def best(run: Callable, times: int = 3) -> float:
    """Seconds of the fastest of a few runs: the one that others on the machine disturbed least."""
    return min(timed(run)[1] for _ in range(times))


if __name__ == "__main__":
    main()
