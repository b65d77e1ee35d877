"""What is counted and measured: the values of `/stats`, and Prometheus' text of `/metrics`."""

import collections
import time

from nanochat_jax.serve.engine.requests import Generation
from nanochat_jax.serve.server.responses import Stats

MEDIA_TYPE = "text/plain; version=0.0.4"  # of Prometheus' text format
GAUGES = ("busy_workers", "total_workers", "waiting", "compilations", "uptime_s")
TTFT_BUCKETS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)  # seconds


class Counters:
    """What grows while the server runs."""

    def __init__(self):
        self.started = time.time()
        self.requests: collections.Counter[tuple[str, int]] = collections.Counter()
        self.tokens = {"prompt_tokens": 0, "cached_prompt_tokens": 0, "completion_tokens": 0}
        self.ttft = [0] * (len(TTFT_BUCKETS) + 1)
        self.ttft_sum = 0.0

    def add(self, generation: Generation, completion_tokens: int) -> None:
        """Books a reply that has ended or was left."""
        self.tokens["prompt_tokens"] += len(generation.request.tokens)
        self.tokens["cached_prompt_tokens"] += generation.cached_tokens
        self.tokens["completion_tokens"] += completion_tokens

    def first_token(self, seconds: float) -> None:
        """Books a time to first token."""
        self.ttft[sum(seconds > edge for edge in TTFT_BUCKETS)] += 1
        self.ttft_sum += seconds


def prometheus_text(stats: Stats, counters: Counters) -> str:
    """Both as lines of Prometheus' text format."""
    lines = []
    for names, kind, end in ((GAUGES, "gauge", ""), (counters.tokens, "counter", "_total")):
        for name in names:
            lines.append(f"# TYPE nanochat_{name}{end} {kind}")
            lines.append(f"nanochat_{name}{end} {getattr(stats, name)}")
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
