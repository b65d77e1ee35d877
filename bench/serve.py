"""The server under load: time to first token, gaps between tokens, throughput, by clients at once.

`python bench/serve.py` starts a server of its own (random weights of the demo's size, or `-i sft`
for a checkpoint) and holds chats with it over real sockets, each of several turns that send the
whole conversation again. Beside it stands the original's way (`--baseline`, on unless `--no-...`):
our own model, one request after the other, one token a dispatch, every prompt read from its
beginning. With `--nanochat PATH` (a checkout of karpathy/nanochat that has its web server; needs
torch and `-i`) the original itself is measured too, on the same weights, exported for it.
Ends with one line of JSON.
"""

import asyncio
import collections
import contextlib
import dataclasses
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import tyro

NEW, OLD = "/v1/chat/completions", "/chat/completions"
ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
QUESTIONS = (
    "Who made you?",
    "What is 72 plus 66?",
    "Tell me a story.",
    "Is a duck a bird?",
    "How is the word river spelled?",
    "Where does Mira live?",
)


@dataclasses.dataclass(frozen=True)
class Bench:
    """Measure the server."""

    clients: tuple[int, ...] = (1, 4, 16, 32, 64)
    """how many talk at once, one measurement each"""
    chats: int = 64
    """chats of a measurement; a sixth of them with one client"""
    turns: int = 2
    """questions of a chat"""
    max_tokens: int = 64
    """tokens of a reply, at most"""
    slots: int = 32
    """slots of the server"""
    queue: int = 1000
    """requests that may wait for a slot"""
    source: Annotated[str, tyro.conf.arg(aliases=["-i"])] = ""
    """a stage's checkpoint; empty: random weights"""
    baseline: bool = True
    """also measure our model driven one request and one token at a time, prompts never reused"""
    nanochat: str = ""
    """a checkout of the original, to be measured too"""
    rounds: int = 3
    """of our server and a peer in turn"""
    port: int = 0
    """set by the bench itself: run as the server"""
    one_at_a_time: bool = False
    """set by the bench itself: the server works as the original does"""


@dataclasses.dataclass
class Timing:
    """One reply as its client saw it, in seconds since its request."""

    first: float
    gaps: list[float]
    whole: float
    tokens: int
    text: str


def run_server(cfg: Bench) -> None:
    """Serves until it is ended."""
    from nanochat_jax import devices
    from nanochat_jax.config.paths import base_dir, compilation_cache

    most = 1 if cfg.one_at_a_time else devices.virtual_devices(cfg.slots, 1)
    kind = devices.prepare(virtual=most, threads=True, cache=compilation_cache(base_dir()))
    from nanochat_jax.checkpoint import load_model
    from nanochat_jax.config.serve import ChatWeb
    from nanochat_jax.serve.engine import Engine
    from nanochat_jax.serve.load import Loaded
    from nanochat_jax.serve.server import launch

    model, tokenizer = load_model(cfg.source)[:2] if cfg.source else random_model()
    loaded = Loaded(model, tokenizer, kind, f"bench-{kind}", 0)
    flags = ChatWeb(slots=cfg.slots, queue=cfg.queue, port=cfg.port)
    if cfg.one_at_a_time:
        engine = Engine(model, tokenizer, slots=1, steps=1, reuse=False)
    else:
        engine = launch.new_engine(flags, loaded)
    service = launch.new_service(flags, loaded, engine)
    launch.run(service, launch.bind(flags.host, flags.port))


def random_model():
    """A model of the demo's size and a tokenizer of bytes and made-up pairs."""
    import jax

    from nanochat_jax.config.gpt import GPTConfig
    from nanochat_jax.devices import compute_dtype
    from nanochat_jax.models.gpt import Model, init_params
    from nanochat_jax.tokenizer import Tokenizer

    shape = GPTConfig(
        sequence_len=256, vocab_size=1152, n_layer=4, n_head=1, n_kv_head=1, n_embd=128
    )
    model = Model.create(shape, init_params(shape, jax.random.key(0)), compute_dtype())
    pairs = [bytes([65 + i // 26, 97 + i % 26]) for i in range(shape.vocab_size - 256 - 9)]
    singles = [bytes([i]) for i in range(256)]
    return model, Tokenizer({raw: i for i, raw in enumerate([*singles, *pairs])})


class Refused(RuntimeError):
    """The server answered with an error; `status` is HTTP's."""

    def __init__(self, status: int):
        self.status = status
        super().__init__(f"the server answered {status}")


async def ask(
    port: int, path: str, messages: list[dict], max_tokens: int, seed: int, leave: bool = False
) -> Timing:
    """One streamed reply over a socket of its own, left at its first text when `leave` says so.

    Tokens are what our server's usage says; the original sends an event for each.
    """
    body = {"messages": messages, "max_tokens": max_tokens, "temperature": 0.8, "top_k": 50}
    if path.startswith("/v1"):
        body |= {"stream": True, "stream_options": {"include_usage": True}, "seed": seed}
    data = json.dumps(body).encode()
    head = (
        f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        f"Connection: close\r\nContent-Length: {len(data)}\r\n\r\n"
    )
    began = time.perf_counter()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(head.encode() + data)
    seen, texts, tokens = [], [], None
    status = int((await reader.readline()).split()[1])
    if status != 200:
        writer.close()
        raise Refused(status)
    async for line in reader:
        if not line.startswith(b"data: {"):
            continue
        text, used = read_event(json.loads(line[6:]))
        if text:
            seen.append(time.perf_counter() - began)
            texts.append(text)
        if leave and texts:
            tokens = len(texts)
            break
        tokens = tokens if used is None else used
    writer.close()
    whole = time.perf_counter() - began
    if tokens is None:
        raise RuntimeError("the server did not answer with a whole reply")
    gaps = [b - a for a, b in zip(seen, seen[1:], strict=False)]
    count = tokens or len(texts)
    return Timing(seen[0] if seen else whole, gaps, whole, count, "".join(texts))


def read_event(event: dict) -> tuple[str, int | None]:
    """(new text, tokens in all) of an event; 0 tokens: the reply is whole, their number unknown."""
    if event.get("usage"):
        return "", event["usage"]["completion_tokens"]
    if event.get("done"):
        return "", 0
    if "token" in event:
        return event["token"], None
    return "".join(choice["delta"].get("content") or "" for choice in event["choices"]), None


async def chat(port: int, path: str, number: int, cfg: Bench) -> list[Timing]:
    """One conversation: every turn sends the whole of it."""
    messages, timings = [], []
    for turn in range(cfg.turns):
        question = QUESTIONS[(number + turn) % len(QUESTIONS)]
        messages.append({"role": "user", "content": question})
        timings.append(await ask(port, path, messages, cfg.max_tokens, number))
        messages.append({"role": "assistant", "content": timings[-1].text or "-"})
    return timings


async def measure(port: int, path: str, clients: int, cfg: Bench) -> dict[str, float]:
    """`clients` chat at once, each beginning a new chat when one has ended."""
    count = max(cfg.chats, clients) if clients > 1 else max(6, cfg.chats // 6)
    left, timings = iter(range(count)), []

    async def client() -> None:
        for number in left:
            timings.extend(await chat(port, path, number, cfg))

    began = time.perf_counter()
    await asyncio.gather(*(client() for _ in range(clients)))
    wall = time.perf_counter() - began
    first = sorted(t.first * 1e3 for t in timings)
    gaps = sorted(gap * 1e3 for t in timings for gap in t.gaps) or [0.0]
    return {
        "clients": clients,
        "replies": len(timings),
        "tokens_per_s": sum(t.tokens for t in timings) / wall,
        "replies_per_s": len(timings) / wall,
        "ttft_median_ms": statistics.median(first),
        "ttft_p95_ms": first[int(0.95 * (len(first) - 1))],
        "gap_median_ms": gaps[len(gaps) // 2],
        "gap_p99_ms": gaps[int(0.99 * (len(gaps) - 1))],
    }


@contextlib.contextmanager
def serving(command: list[str], port: int, **more) -> Iterator[subprocess.Popen]:
    """A server in a process of its own, once it is ready; ended afterwards."""
    server = subprocess.Popen(command, **more)
    try:
        for _ in range(1200):
            if server.poll() is not None:
                raise RuntimeError(f"the server ended with {server.returncode}: {command}")
            with contextlib.suppress(OSError):
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/health") as answer:
                    if json.load(answer)["ready"]:
                        break
            time.sleep(0.25)
        else:
            raise RuntimeError("the server did not become ready")
        yield server
    finally:
        server.terminate()
        try:
            server.wait(20)
        except subprocess.TimeoutExpired:
            server.kill()


def free_port() -> int:
    """A port that nobody listens on just now."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def own_server(cfg: Bench, port: int, one_at_a_time: bool = False):
    """Our server, as this file run once more."""
    flags = ["--port", str(port), "--slots", str(cfg.slots), "--queue", str(cfg.queue)]
    flags += ["--source", cfg.source] if cfg.source else []
    flags += ["--one-at-a-time"] if one_at_a_time else []
    return serving([sys.executable, __file__, *flags], port)


def original_server(cfg: Bench, port: int, folder: str):
    """The original's own web server on the weights exported into `folder`."""
    export = ["-m", "scripts.convert", "export", "--format", "nanochat", "--dir", folder]
    export = [sys.executable, *export, "--source", cfg.source, "--no-optimizer"]
    subprocess.run(export, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    env = {**os.environ, "NANOCHAT_BASE_DIR": folder, "PYTHONPATH": cfg.nanochat}
    flags = ["-i", cfg.source, "-p", str(port), "--host", "127.0.0.1"]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    # As a file: `-m scripts...` would find our own package of that name first.
    command = [sys.executable, "scripts/chat_web.py", *flags]
    return serving(command, port, cwd=cfg.nanochat, env=env, **quiet)


def warm(port: int, path: str, cfg: Bench) -> None:
    """A few chats that are not counted."""
    asyncio.run(measure(port, path, 2, dataclasses.replace(cfg, chats=4)))


def measure_and_print(
    name: str, port: int, path: str, clients: int, cfg: Bench
) -> dict[str, float]:
    """A measurement, printed."""
    row = asyncio.run(measure(port, path, clients, cfg))
    print(f"{name:14}", {k: round(v, 1) for k, v in row.items()}, flush=True)
    return row


def by_clients(cfg: Bench) -> list[dict[str, float]]:
    """Our server with each number of clients."""
    port = free_port()
    with own_server(cfg, port):
        warm(port, NEW, cfg)
        return [measure_and_print("engine", port, NEW, clients, cfg) for clients in cfg.clients]


def against(name: str, peer, peer_port: int, path: str, cfg: Bench) -> dict[str, float]:
    """Our tokens and replies a second over the peer's with one client and with 32, in turn.

    Medians over the rounds: a machine's speed wanders, and both meet the same weather.
    """
    port, ratios = free_port(), collections.defaultdict(list)
    with own_server(cfg, port), peer:
        warm(port, NEW, cfg)
        warm(peer_port, path, cfg)
        for clients in (1, 32) * cfg.rounds:
            ours = measure_and_print("engine", port, NEW, clients, cfg)
            theirs = measure_and_print(name, peer_port, path, clients, cfg)
            for what in ("tokens_per_s", "replies_per_s"):
                ratios[f"{what}_at_{clients}"].append(ours[what] / theirs[what])
    return {key: round(statistics.median(found), 2) for key, found in ratios.items()}


def main() -> None:
    cfg = tyro.cli(Bench)
    if cfg.port:
        return run_server(cfg)
    if cfg.nanochat and not cfg.source:
        raise SystemExit("--nanochat needs a checkpoint to export: add -i sft")
    port, result = free_port(), {"engine": by_clients(cfg)}
    if cfg.baseline:
        print("one at a time: one request, one token a dispatch, no prefix reuse", flush=True)
        server = own_server(cfg, port, one_at_a_time=True)
        result["over_one_at_a_time"] = against("one at a time", server, port, NEW, cfg)
    if cfg.nanochat:
        with tempfile.TemporaryDirectory() as folder:
            server = original_server(cfg, port, folder)
            result["over_nanochat"] = against("nanochat", server, port, OLD, cfg)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
