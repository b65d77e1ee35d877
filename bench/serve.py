"""The server under load: time to first token, gaps between tokens, throughput, by clients at once.

`python bench/serve.py` starts a server of its own (random weights of the demo's size, or `-i sft`
for a checkpoint) and talks to it over real sockets from another process. Beside it stands the
original's way: one request at a time, one dispatch a token. Ends with one line of JSON.
"""

import asyncio
import dataclasses
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Annotated

import tyro

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
QUESTIONS = ("Who made you?", "What is 72 plus 66?", "Tell me a story.", "Is a duck a bird?")


@dataclasses.dataclass(frozen=True)
class Bench:
    """Measure the server."""

    clients: tuple[int, ...] = (1, 4, 16, 32, 64)
    """how many talk at once, one measurement each"""
    requests: int = 96
    """replies of a measurement"""
    max_tokens: int = 64
    """tokens of a reply, at most"""
    slots: int = 32
    """slots of the server"""
    source: Annotated[str, tyro.conf.arg(aliases=["-i"])] = ""
    """a stage's checkpoint; empty: random weights"""
    port: int = 0
    """set by the bench itself: run as the server"""
    one_at_a_time: bool = False
    """set by the bench itself: the server works as the original does"""


@dataclasses.dataclass
class Timing:
    """One reply as its client saw it, in seconds since it asked."""

    first: float
    gaps: list[float]
    whole: float
    tokens: int


def run_server(cfg: Bench) -> None:
    """Serves until it is ended."""
    from nanochat_jax import devices
    from nanochat_jax.config.stages import base_dir

    kind = devices.prepare(cache=base_dir() / "jax_cache")
    import jax
    import uvicorn

    from nanochat_jax.checkpoint import load_model
    from nanochat_jax.config.gpt import GPTConfig
    from nanochat_jax.models.gpt import Model, init_params
    from nanochat_jax.serve.api import create_app
    from nanochat_jax.serve.engine import Engine
    from nanochat_jax.serve.scheduler import Scheduler
    from nanochat_jax.serve.service import Defaults, Service
    from nanochat_jax.tokenizer import Tokenizer

    if cfg.source:
        model, tokenizer, _ = load_model(cfg.source)
    else:
        shape = GPTConfig(
            sequence_len=128, vocab_size=1152, n_layer=4, n_head=1, n_kv_head=1, n_embd=128
        )
        model = Model.create(shape, init_params(shape, jax.random.key(0)))
        pairs = [bytes([65 + i // 26, 97 + i % 26]) for i in range(shape.vocab_size - 256 - 9)]
        singles = [bytes([i]) for i in range(256)]
        tokenizer = Tokenizer({raw: i for i, raw in enumerate([*singles, *pairs])})
    slots, steps = (1, 1) if cfg.one_at_a_time else (cfg.slots, 8)
    engine = Engine(model, tokenizer, slots=slots, steps=steps, tool=lambda _: None)
    scheduler = Scheduler(engine, queue_limit=1000)
    app = create_app(Service(scheduler, tokenizer, f"bench-{kind}", Defaults()))
    uvicorn.run(app, port=cfg.port, log_level="warning", access_log=False)


async def ask(port: int, i: int, max_tokens: int) -> Timing:
    """One streamed reply over a socket of its own; parses no more than it must."""
    body = json.dumps(
        {
            "messages": [{"role": "user", "content": QUESTIONS[i % len(QUESTIONS)]}],
            "stream": True,
            "stream_options": {"include_usage": True},
            "max_tokens": max_tokens,
            "temperature": 0.8,
            "top_k": 50,
            "seed": i,
        }
    ).encode()
    head = (
        f"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        f"Connection: close\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    began = time.perf_counter()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(head.encode() + body)
    seen, usage = [], b""
    async for line in reader:
        if line.startswith(b"data: ") and b'"content": "' in line and b'"role"' not in line:
            seen.append(time.perf_counter() - began)
        if b'"completion_tokens"' in line:
            usage = line
    writer.close()
    if not usage:
        raise RuntimeError("the server did not answer with a whole reply")
    tokens = json.loads(usage[6:])["usage"]["completion_tokens"]
    gaps = [b - a for a, b in zip(seen, seen[1:], strict=False)]
    whole = time.perf_counter() - began
    return Timing(seen[0] if seen else whole, gaps, whole, tokens)


async def measure(port: int, clients: int, cfg: Bench) -> dict[str, float]:
    """`clients` ask one after the other, each at once again, until all requests are answered."""
    left = iter(range(max(cfg.requests, clients) if clients > 1 else max(8, cfg.requests // 6)))
    timings: list[Timing] = []

    async def client() -> None:
        for i in left:
            timings.append(await ask(port, i, cfg.max_tokens))

    began = time.perf_counter()
    await asyncio.gather(*(client() for _ in range(clients)))
    wall = time.perf_counter() - began
    first = [t.first * 1e3 for t in timings]
    gaps = sorted(gap * 1e3 for t in timings for gap in t.gaps) or [0.0]
    return {
        "clients": clients,
        "replies": len(timings),
        "tokens_per_s": sum(t.tokens for t in timings) / wall,
        "replies_per_s": len(timings) / wall,
        "ttft_median_ms": statistics.median(first),
        "ttft_p95_ms": sorted(first)[int(0.95 * (len(first) - 1))],
        "gap_median_ms": gaps[len(gaps) // 2],
        "gap_p99_ms": gaps[int(0.99 * (len(gaps) - 1))],
    }


def start(cfg: Bench, port: int, one_at_a_time: bool) -> subprocess.Popen:
    """A server in a process of its own, once it is ready."""
    import urllib.request

    flags = ["--port", str(port), "--slots", str(cfg.slots)]
    flags += ["--source", cfg.source] if cfg.source else []
    flags += ["--one-at-a-time"] if one_at_a_time else []
    server = subprocess.Popen([sys.executable, __file__, *flags], env=os.environ)
    for _ in range(1200):
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/health") as answer:
                if answer.status == 200:
                    return server
        except OSError:
            time.sleep(0.25)
    server.kill()
    raise RuntimeError("the server did not become ready")


def run(cfg: Bench, one_at_a_time: bool) -> list[dict[str, float]]:
    """All measurements on one server."""
    import socket

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server, rows = start(cfg, port, one_at_a_time), []
    try:
        asyncio.run(measure(port, 2, dataclasses.replace(cfg, requests=4)))
        for clients in (1, 32) if one_at_a_time else cfg.clients:
            rows.append(asyncio.run(measure(port, clients, cfg)))
            shown = {k: round(v, 1) for k, v in rows[-1].items()}
            print("one at a time" if one_at_a_time else "engine       ", shown, flush=True)
    finally:
        server.terminate()
        server.wait(20)
    return rows


def main() -> None:
    cfg = tyro.cli(Bench)
    if cfg.port:
        return run_server(cfg)
    ours, theirs = run(cfg, False), run(cfg, True)
    at = lambda rows, clients: next((r for r in rows if r["clients"] == clients), rows[-1])
    result = {
        "engine": ours,
        "one_at_a_time": theirs,
        "speedup_at_32": at(ours, 32)["tokens_per_s"] / at(theirs, 32)["tokens_per_s"],
        "speedup_at_1": at(ours, 1)["tokens_per_s"] / at(theirs, 1)["tokens_per_s"],
        "ttft_ratio_32_to_1": at(ours, 32)["ttft_median_ms"] / at(ours, 1)["ttft_median_ms"],
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
