"""What is counted and measured, by prometheus-client: `/metrics`, and the counts of `/stats`."""

import time

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4 as MEDIA_TYPE

from nanochat_jax.serve.engine.requests import Generation
from nanochat_jax.serve.server.responses import Stats

__all__ = ["MEDIA_TYPE", "Counters"]

TOKENS = {
    "prompt_tokens": "Tokens of prompts",
    "cached_prompt_tokens": "Tokens of prompts that were in the cache",
    "completion_tokens": "Tokens of replies, forced ones included",
}
GAUGES = {
    "busy_workers": "Slots in use", "total_workers": "Slots", "waiting": "Replies without a slot",
    "compilations": "Programs compiled", "uptime_s": "Seconds since the start",
}  # fmt: skip
TTFT_BUCKETS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)  # seconds


class Counters:
    """What grows while one server runs; in a registry of its own, as a process may have several."""

    def __init__(self):
        self.started = time.time()
        self.registry = CollectorRegistry()
        own = {"namespace": "nanochat", "registry": self.registry}
        self._requests = Counter("requests", "Answers sent", ("path", "status"), **own)
        self._tokens = {name: Counter(name, said, **own) for name, said in TOKENS.items()}
        self._gauges = {name: Gauge(name, said, **own) for name, said in GAUGES.items()}
        said = "From a request to the first token of its reply"
        self._ttft = Histogram("time_to_first_token_seconds", said, buckets=TTFT_BUCKETS, **own)

    def answered(self, path: str, status: int) -> None:
        """Books an answer of a route."""
        self._requests.labels(path, status).inc()

    def add(self, generation: Generation, completion_tokens: int) -> None:
        """Books a reply that has ended or was left."""
        self._tokens["prompt_tokens"].inc(len(generation.request.tokens))
        self._tokens["cached_prompt_tokens"].inc(generation.cached_tokens)
        self._tokens["completion_tokens"].inc(completion_tokens)

    def first_token(self, seconds: float) -> None:
        """Books a time to first token."""
        self._ttft.observe(seconds)

    @property
    def tokens(self) -> dict[str, int]:
        """The counts of tokens by the names of `/stats`."""
        value = self.registry.get_sample_value
        return {name: int(value(f"nanochat_{name}_total")) for name in TOKENS}

    def exposed(self, stats: Stats) -> bytes:
        """Everything in Prometheus' text format; its media type is `MEDIA_TYPE`."""
        for name, gauge in self._gauges.items():
            gauge.set(getattr(stats, name))
        return generate_latest(self.registry)
