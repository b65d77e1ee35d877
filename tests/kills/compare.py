"""What two runs of a stage left on disk, byte by byte, apart from times."""

import json
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import numpy as np

from nanochat_jax.checkpoint import store
from nanochat_jax.config.program import FieldKind
from nanochat_jax.config.stages import STAGES
from nanochat_jax.config.values import fields
from nanochat_jax.train import metrics, rollout_log

TIMES = {"tokens_per_s", "step_ms", "mfu"}  # of a line of `metrics.jsonl`
TIME = "train_s"  # in a checkpoint's `loop`


def differences(whole: pathlib.Path, parts: pathlib.Path, stage: str) -> dict[str, int]:
    """What differs between two checkpoint directories -> how many bytes of it; {} where nothing."""
    one, two = (dict(contents(path, stage)) for path in (whole, parts))
    counts = {n: _differing(one.get(n, b""), two.get(n, b"")) for n in one.keys() | two.keys()}
    return {name: count for name, count in sorted(counts.items()) if count}


def contents(directory: pathlib.Path, stage: str) -> Iterator[tuple[str, bytes]]:
    """All that the last checkpoint and the logs of a run hold, by name."""
    saved = store.find(directory)
    for name, tree in (("params", saved.params()), ("optimizer", saved.optimizer())):
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
            yield name + jax.tree_util.keystr(path), np.asarray(leaf).tobytes()
    yield "loader", _text(saved.loader)
    for name, value in _timeless(saved.meta, stage).items():
        yield f"meta.json {name}", _text(value)
    for n, line in enumerate(metrics.read(directory / "metrics.jsonl")):
        yield f"metrics.jsonl {n}", _text({k: v for k, v in line.items() if k not in TIMES})
    for step in rollout_log.steps(directory):
        yield f"rollouts {step}", _text(rollout_log.read(directory, step))


def _timeless(meta: Mapping[str, Any], stage: str) -> dict[str, Any]:
    """A `meta.json` without what is of the call (`--resume`) and of the clock."""
    known = fields(STAGES[stage])
    config = {n: v for n, v in meta["config"].items() if known[n].kind is not FieldKind.PER_CALL}
    progress = {name: value for name, value in meta["loop"].items() if name != TIME}
    return {**meta, "config": config, "loop": progress}


def _text(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True).encode()


def _differing(one: bytes, two: bytes) -> int:
    a, b = (np.frombuffer(x, np.uint8) for x in (one, two))
    shared = min(a.size, b.size)
    return int((a[:shared] != b[:shared]).sum()) + max(a.size, b.size) - shared
