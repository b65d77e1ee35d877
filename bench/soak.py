"""Many people for a long time: does everybody get an answer, does memory stay, is `/health` quick?

`python bench/soak.py [--chats 200] [--seconds 60]` starts the server of `bench/serve.py` and keeps
that many chats going at once, of turns of mixed lengths, some of them left in the middle of a
reply. Each reply must be whole or be refused with 429, after which its client waits and tries
again. A process of its own requests `/health` ten times a second; the server's memory is read
every second. Ends with one line of JSON, and with 1 when a promise was broken.
"""

import asyncio
import dataclasses
import http.client
import json
import multiprocessing
import random
import statistics
import sys
import time
from collections import Counter
from pathlib import Path

import tyro
from serve import QUESTIONS, Refused, ask, free_port, own_server

HEALTH_EVERY_S = 0.1
BACK_OFF_S = (0.5, 2.0)  # how long a refused client waits
PATH = "/v1/chat/completions"


@dataclasses.dataclass(frozen=True)
class Soak:
    """Keep a server busy."""

    chats: int = 200
    """chats going on at once"""
    seconds: float = 60.0
    """how long"""
    slots: int = 32
    """slots of the server"""
    queue: int = 128
    """requests that may wait for a slot"""
    turns: int = 4
    """questions of a chat before a new one begins"""
    leave: float = 0.05
    """share of replies whose reader leaves in the middle"""
    health_ms: float = 50.0
    """what `/health` may take"""
    growth: float = 0.05
    """share of its memory that the server may grow by, after the first quarter of the time"""
    source: str = ""
    """a stage's checkpoint; empty: random weights"""


async def one_chat(port: int, cfg: Soak, number: int, end: float, seen: Counter, first_s: list):
    """Conversations one after the other until `end`; books how each question was answered."""
    draw, messages, turn = random.Random(number), [], 0
    await asyncio.sleep(draw.random())
    while time.monotonic() < end:
        messages = messages if turn % cfg.turns else []
        question = " ".join(draw.choices(QUESTIONS, k=draw.choice((1, 1, 2, 4))))
        conversation = [*messages, {"role": "user", "content": question}]
        leave = draw.random() < cfg.leave
        try:
            reply = await ask(
                port, PATH, conversation, draw.choice((8, 32, 64, 128)), number, leave
            )
        except Refused as refused:
            seen[str(refused.status)] += 1
            await asyncio.sleep(draw.uniform(*BACK_OFF_S))
            continue
        except (OSError, RuntimeError, ValueError) as error:
            seen["broken"] += 1
            print(f"chat {number}: {type(error).__name__}: {error}", flush=True)
            await asyncio.sleep(BACK_OFF_S[0])
            continue
        seen["left" if leave else "answered"] += 1
        first_s.append(reply.first)
        messages = [*conversation, {"role": "assistant", "content": reply.text or "-"}]
        turn += 1


def watch_health(port: int, seconds: float, results) -> None:
    """Sends (second, milliseconds) of each request to `/health`, -1 ms for one that failed."""
    health, began = [], time.monotonic()
    line = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    while (at_s := time.monotonic() - began) < seconds:
        begun = time.perf_counter()
        try:
            line.request("GET", "/health")
            answer = line.getresponse()
            ok = answer.status == 200 and json.loads(answer.read())["ready"]
        except (OSError, http.client.HTTPException, ValueError):
            ok, line = False, http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        health.append((at_s, 1e3 * (time.perf_counter() - begun) if ok else -1.0))
        time.sleep(HEALTH_EVERY_S)
    results.send(health)


def resident_mb(pid: int) -> float:
    """Memory of a process, in MiB (Linux)."""
    fields = dict(
        line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines()
    )
    return int(fields["VmRSS"].split()[0]) / 1024


async def soak(port: int, pid: int, cfg: Soak) -> tuple[Counter, list[float], list[float]]:
    """All chats together: how they were answered, times to first text, memory by the second."""
    seen, first_s, memory_mb = Counter(), [], []
    end = time.monotonic() + cfg.seconds
    chats = [one_chat(port, cfg, i, end, seen, first_s) for i in range(cfg.chats)]
    everybody = asyncio.gather(*chats)
    printed = time.monotonic()
    while not everybody.done():
        memory_mb.append(resident_mb(pid))
        if time.monotonic() > printed + 30:
            printed = time.monotonic()
            print(f"{end - printed:6.0f} s left, {memory_mb[-1]:.0f} MiB, {dict(seen)}", flush=True)
        await asyncio.wait([everybody], timeout=1.0)
    await everybody
    return seen, first_s, memory_mb


def summary(cfg: Soak, seen: Counter, first_s: list, memory_mb: list, health: list) -> dict:
    """The figures, and which promises were broken."""
    at = lambda values, share: sorted(values)[int(share * (len(values) - 1))]
    settled = statistics.median(memory_mb[len(memory_mb) // 4 : len(memory_mb) // 2])
    last = statistics.median(memory_mb[-max(1, len(memory_mb) // 8) :])
    answered = [ms for _, ms in health if ms >= 0] or [float("inf")]
    failed = sum(ms < 0 for _, ms in health)
    broken = {
        "answered or 429": set(seen) - {"answered", "left", "429"} or not seen["answered"],
        "memory flat": last > settled * (1 + cfg.growth),
        f"/health < {cfg.health_ms:g} ms": max(answered) >= cfg.health_ms or failed,
    }
    return {
        "replies": dict(seen),
        "replies_per_s": seen["answered"] / cfg.seconds,
        "ttft_median_ms": 1e3 * statistics.median(first_s or [float("nan")]),
        "health": {
            "asked": len(health),
            "failed": failed,
            "p50_ms": at(answered, 0.5),
            "p99_ms": at(answered, 0.99),
            "max_ms": max(answered),
            "slow": [
                {"at_s": round(at_s, 1), "ms": round(ms, 1)}
                for at_s, ms in health
                if not 0 <= ms < cfg.health_ms
            ],
        },
        "memory_mb": {"settled": settled, "last": last, "highest": max(memory_mb)},
        "broken_promises": [promise for promise, is_broken in broken.items() if is_broken],
        "settings": dataclasses.asdict(cfg),
    }


def main() -> int:
    cfg, port = tyro.cli(Soak), free_port()
    with own_server(cfg, port) as server:
        receiving, sending = multiprocessing.get_context("spawn").Pipe(duplex=False)
        watcher = multiprocessing.get_context("spawn").Process(
            target=watch_health, args=(port, cfg.seconds, sending), daemon=True
        )
        watcher.start()
        figures = asyncio.run(soak(port, server.pid, cfg))
        result = summary(cfg, *figures, receiving.recv())
    print(json.dumps(result))
    return bool(result["broken_promises"])


if __name__ == "__main__":
    sys.exit(main())
