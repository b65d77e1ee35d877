"""What is counted and measured: the values of `/stats`, and Prometheus' text of `/metrics`."""

import collections
import time

from nanochat_jax.serve.engine.requests import Generation
from nanochat_jax.serve.server.responses import Stats, Worker
from nanochat_jax.serve.server.scheduler import Scheduler

MEDIA_TYPE = "text/plain; version=0.0.4"  # of Prometheus' text format
GAUGES = ("busy_workers", "total_workers", "waiting", "compilations", "uptime_s")
TOTALS = ("prompt_tokens", "cached_prompt_tokens", "completion_tokens")
TTFT_BUCKETS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)  # seconds


class Counters:
    """What grows while the server runs."""

    def __init__(self):
        self.started = time.time()
        self.requests: collections.Counter[tuple[str, int]] = collections.Counter()
        self.prompt_tokens = self.cached_tokens = self.completion_tokens = 0
        self.ttft = [0] * (len(TTFT_BUCKETS) + 1)
        self.ttft_sum = 0.0

    def add(self, generation: Generation, completion_tokens: int) -> None:
        """Books a reply that has ended or was left."""
        self.prompt_tokens += len(generation.request.tokens)
        self.cached_tokens += generation.cached_tokens
        self.completion_tokens += completion_tokens

    def first_token(self, seconds: float) -> None:
        """Books a time to first token."""
        self.ttft[sum(seconds > edge for edge in TTFT_BUCKETS)] += 1
        self.ttft_sum += seconds


def read_stats(scheduler: Scheduler, counters: Counters, model_id: str) -> Stats:
    """How busy the engine is, in the original's words and ours."""
    engine = scheduler.engine
    slots, busy = len(engine.slots), engine.active
    return Stats(
        total_workers=slots,
        available_workers=slots - busy,
        busy_workers=busy,
        workers=[Worker(gpu_id=i, device=name) for i, name in enumerate(engine.devices)],
        model=model_id,
        context=engine.max_len,
        waiting=scheduler.waiting,
        queue_limit=scheduler.queue_limit,
        compilations=engine.pool.compilations,
        cache_tokens_per_row=engine.pool.length,
        cache_bytes=engine.pool.cache_bytes,
        weight_bytes=engine.pool.weight_bytes,
        int8=engine.int8,
        uptime_s=round(time.time() - counters.started, 3),
        prompt_tokens=counters.prompt_tokens,
        cached_prompt_tokens=counters.cached_tokens,
        completion_tokens=counters.completion_tokens,
    )


def prometheus_text(stats: Stats, counters: Counters) -> str:
    """Both as lines of Prometheus' text format."""
    values, lines = stats.model_dump(include={*GAUGES, *TOTALS}), []
    for names, kind, end in ((GAUGES, "gauge", ""), (TOTALS, "counter", "_total")):
        for name in names:
            lines += [
                f"# TYPE nanochat_{name}{end} {kind}",
                f"nanochat_{name}{end} {values[name]}",
            ]
    lines.append("# TYPE nanochat_requests_total counter")
    # Sorted, so that two readings differ only where something was counted.
    for (path, status), count in sorted(counters.requests.items()):
        labels = f'path="{path}",status="{status}"'
        lines.append(f"nanochat_requests_total{{{labels}}} {count}")
    return "\n".join([*lines, *_ttft_lines(counters)]) + "\n"


def _ttft_lines(counters: Counters) -> list[str]:
    """The histogram of the times to first token."""
    name, seen = "nanochat_time_to_first_token_seconds", 0
    lines = [f"# TYPE {name} histogram"]
    for edge, count in zip((*TTFT_BUCKETS, "+Inf"), counters.ttft, strict=True):
        seen += count  # Prometheus' buckets are cumulative: each counts all below its edge
        lines.append(f'{name}_bucket{{le="{edge}"}} {seen}')
    return [*lines, f"{name}_sum {counters.ttft_sum:.6f}", f"{name}_count {seen}"]
