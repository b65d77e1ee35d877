"""Throws what can be made of the OpenAPI document at a server with a tiny model, and counts.

    python -m tests.serve.server.fuzz --requests 10000

Valid and broken requests, made and judged by schemathesis: an answer that is a server error, or not
what the document says, fails. Prints its report and, as the last line, JSON; exits with 1 when
something was wrong. The requests are counted by the server.
"""

import argparse
import collections
import json
import subprocess
import sys
import tempfile

from prometheus_client import CollectorRegistry

from tests.serve.conftest import RunningServer, new_service

# Not that everything the document allows is answered 200: some limits are beyond JSON Schema (the
# length of a whole conversation, one of two fields) and are answered 400.
NOT_CHECKED = "positive_data_acceptance"


def fuzz(server: RunningServer, requests: int, seed: int = 0) -> tuple[collections.Counter, bool]:
    """(answers by status, all was well) of at least `requests` requests, in rounds."""
    answers = lambda: answers_by_status(server.service.counters.registry)
    before, well, rounds = answers(), True, 0
    while well and (left := requests - (answers() - before).total()) > 0:
        well = _round(server.url, max(1, min(300, left // 12)), seed + rounds)
        rounds += 1
    return answers() - before, well


def answers_by_status(registry: CollectorRegistry) -> collections.Counter[int]:
    """How many answers the server has counted."""
    counts: collections.Counter[int] = collections.Counter()
    for metric in registry.collect():
        for sample in metric.samples:
            if sample.name == "nanochat_requests_total":
                counts[int(sample.labels["status"])] += int(sample.value)
    return counts


def _round(url: str, examples: int, seed: int) -> bool:
    """One run over all operations with up to `examples` made for each of them."""
    command = [sys.executable, "-m", "schemathesis.cli", "run", url + "/openapi.json"]
    command += ["--phases", "examples,coverage,fuzzing", "--exclude-checks", NOT_CHECKED]
    # One worker: in CPython 3.11 two threads that parse at once break each other's `ast.parse`.
    command += ["-n", str(examples), "-w", "1", "--seed", str(seed), "--no-shrink"]
    with tempfile.TemporaryDirectory() as folder:  # where it may leave its reports
        return subprocess.run([*command, "--warnings", "off"], cwd=folder).returncode == 0


def main() -> int:
    parser = argparse.ArgumentParser(description="Fuzz the API by its OpenAPI document.")
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    with RunningServer(new_service()) as server:
        counts, well = fuzz(server.wait_ready(), asked.requests, asked.seed)
    errors = sum(count for status, count in counts.items() if status >= 500)
    by_status = {str(status): counts[status] for status in sorted(counts)}
    result = {"requests": counts.total(), "server_errors": errors, "statuses": by_status}
    print(json.dumps({**result, "as_documented": well}))
    return 0 if well and not errors else 1


if __name__ == "__main__":
    sys.exit(main())
