"""Replies of one model by our engine and by the original's, on a CPU: tokens a second of each.

Started by `bench/decode.py --peer CLONE --peer-python PY`. `CLONE` is a checkout of
karpathy/nanochat of October 2025, `PY` an interpreter with torch. Both engines hold d8 of the
classic recipe (92 M random parameters, float32), read the same prompt, and choose tokens for one
row and for eight by temperature and top-k, on all cores. Each side has a process of its own; they
are asked in turn. A step cannot be faster than its matrices are read: `floor_ms`, by what a large
matrix-vector product reads a second here.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from ways import Way, serve

ROOT = Path(__file__).resolve().parents[1]
SHAPE = dict(n_layer=8, n_head=4, n_kv_head=4, n_embd=512, vocab_size=65536, sequence_len=512)
PROMPT = 128
OURS, THEIRS, READING = "ours", "original", "reading"
# From the second token on: our first dispatch brings two, each further one eight.
TOKENS, SKIPPED = 66, 2


def compare(
    clone: Path, python: str, rounds: int, temperature: float, top_k: int
) -> dict[str, Any]:
    """All cases' rows: medians of rounds in turn, without the first, in which they compile."""
    cases = [
        measure(rows, clone, python, rounds, [f"--temperature={temperature}", f"--top-k={top_k}"])
        for rows in (1, 8)
    ]
    return {"model": SHAPE, "temperature": temperature, "top_k": top_k, "cases": cases}


def measure(
    rows: int, clone: Path, python: str, rounds: int, flags: Sequence[str]
) -> dict[str, Any]:
    """The row of one case; prints it in words."""
    argv = [f"--rows={rows}", *flags]
    ours, reading = (Way(__file__, name, argv) for name in (OURS, READING))
    theirs = Way(__file__, THEIRS, [*argv, f"--peer={clone.resolve()}"], python)
    found: dict[str, list[float]] = {OURS: [], THEIRS: [], READING: []}
    try:
        for i in range(rounds + 1):
            for way in (ours, theirs, reading):
                seconds = way.ask().found
                found[way.name] += [seconds] if i else []
    finally:
        for way in (ours, theirs, reading):
            way.end()
    step_s = {name: statistics.median(times) for name, times in found.items()}
    row = {
        "name": f"{rows} row{'s' if rows > 1 else ''}",
        "tokens_per_s": {name: round(rows / step_s[name], 1) for name in (OURS, THEIRS)},
        "step_ms": {name: round(1e3 * step_s[name], 2) for name in (OURS, THEIRS)},
        "floor_ms": round(1e3 * min(found[READING]), 2),
        "ratio": round(step_s[THEIRS] / step_s[OURS], 3),
        "ratios": [round(t / o, 3) for o, t in zip(found[OURS], found[THEIRS], strict=True)],
    }
    print(row, flush=True)
    return row


def way(args: argparse.Namespace) -> Callable[[], float]:
    """What a process does when it is asked: seconds a step."""
    if args.way == READING:
        return reading_seconds()
    generate = (our_engine if args.way == OURS else their_engine)(args)
    prompt = list(range(PROMPT))
    settings = dict(max_tokens=TOKENS, temperature=args.temperature, top_k=args.top_k)
    return lambda: step_seconds(generate(prompt, num_samples=args.rows, **settings))


def step_seconds(columns: Iterator[Any]) -> float:
    """Seconds a column, but for the first ones."""
    times = [time.perf_counter() for _ in columns]
    assert len(times) == TOKENS, f"{len(times)} tokens of {TOKENS}"
    return (times[-1] - times[SKIPPED - 1]) / (TOKENS - SKIPPED)


def our_engine(args: argparse.Namespace) -> Callable[..., Iterator[Any]]:
    sys.path.insert(0, str(ROOT))
    import jax
    import jax.numpy as jnp
    from decode import random_params

    from nanochat_jax.config.gpt import GPTConfig
    from nanochat_jax.models.gpt import GPT, Model
    from nanochat_jax.serve.engine import Engine
    from nanochat_jax.tokenizer import Tokenizer

    jax.config.update("jax_platforms", "cpu")
    gpt = GPT(GPTConfig(**SHAPE), dtype=jnp.dtype("float32"))
    tokenizer = Tokenizer({bytes([i]): i for i in range(256)})
    return Engine(Model(gpt, random_params(gpt)), tokenizer, slots=args.rows).generate


def their_engine(args: argparse.Namespace) -> Callable[..., Iterator[Any]]:
    sys.path.insert(0, str(args.peer))
    import torch
    from nanochat.engine import Engine
    from nanochat.gpt import GPT, GPTConfig

    class NoSpecials:
        """A tokenizer whose special tokens are never chosen: no row ends early."""

        encode_special = get_bos_token_id = staticmethod(lambda *_: -1)

    torch.manual_seed(0)
    model = GPT(GPTConfig(**SHAPE))
    model.init_weights()
    with torch.no_grad():
        for parameter in model.parameters():  # some begin at zero
            parameter.normal_(0, 0.02)
    return Engine(model.eval(), NoSpecials()).generate


def reading_seconds() -> Callable[[], float]:
    """Seconds to read as many bytes as a step's matrices have: the best of some."""
    import jax
    import jax.numpy as jnp

    D, V = SHAPE["n_embd"], SHAPE["vocab_size"]
    matrices = 4 * (12 * D * D * SHAPE["n_layer"] + D * V)
    halves = [jnp.ones((2**16, 2**10)) for _ in range(2)]  # one for each of two cores
    product = jax.jit(lambda halves, x: [half @ x for half in halves])
    x = jnp.ones(2**10)

    def best() -> float:
        times = []
        for _ in range(10):
            begun = time.perf_counter()
            jax.block_until_ready(product(halves, x))
            times.append(time.perf_counter() - begun)
        return min(times) * matrices / sum(half.nbytes for half in halves)

    return best


def main() -> None:
    parser = argparse.ArgumentParser(description="A way of `bench/decode.py --peer`.")
    parser.add_argument("--rows", type=int, required=True)
    parser.add_argument("--temperature", type=float, required=True)
    parser.add_argument("--top-k", type=int, required=True)
    parser.add_argument("--peer", type=Path)
    parser.add_argument("--way", required=True)
    serve(way(parser.parse_args()))


if __name__ == "__main__":
    main()
