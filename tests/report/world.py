"""A base directory as a small chain leaves it, made by hand; and one full of evil texts."""

import json
import math
import pathlib

from nanochat_jax import report
from nanochat_jax.config.load import flatten
from nanochat_jax.config.stages import CHECKPOINT_DIRS, SECTIONS

SHAPE = {
    "n_layer": 2, "n_head": 1, "n_kv_head": 1, "n_embd": 32, "vocab_size": 300, "sequence_len": 64,
}  # fmt: skip
EVIL = "</script><script>alert(1)</script><img src=http://x.invalid/y onerror=alert(2)>\"'`|\ud83d"


def lines(steps: int, said: str) -> list[dict]:
    """The metrics of a run that got better."""
    found = []
    for i in range(steps):
        if i % 10 == 0:
            found.append({"step": i, "val/bpb": 1 / (1 + i), "pass@1": i / steps, "pass@8": 0.9})
        if i % 20 == 19:
            found.append({"step": i, "samples": [f"One day, {said}", said]})
        numbers = {"train/loss": 1 + math.exp(-i), "train/lr_multiplier": 1 - i / steps}
        speed = {"tokens_per_s": 5000.0 if i else 3.0, "step_ms": 100.0}
        found.append({"step": i, **numbers, **speed, "reward": i / steps})
    return found


def rollouts(steps: int, said: str) -> list[dict]:
    """The recorder's lines of a run whose answers became right half-way."""
    sample = lambda step: {
        "text": said, "pieces": [[said, 1], ["85", 0]], "reward": float(step >= steps // 2),
        "advantage": 0.5, "stopped": step % 2 == 0, "ids": [1, 2], "mask": [1, 0],
    }  # fmt: skip
    entry = lambda step: {
        "step": step, "task": "GSM8K", "row": 3, "prompt": said, "answer": "85",
        "samples": [sample(step)] * 9,
    }  # fmt: skip
    return [entry(step) for step in range(steps)]


def write_run(
    root: pathlib.Path, stage: str, steps: int = 60, said: str = "it rained.", **settings
) -> pathlib.Path:
    """A checkpoint directory without arrays."""
    directory = root / CHECKPOINT_DIRS[stage] / "d2"
    (directory / f"{steps:06d}").mkdir(parents=True)
    config = flatten(SECTIONS[stage if stage in SECTIONS else "sft"]())
    config |= {"sample_prompts": ["One day,", "The"], **settings}
    loop = {"train_s": 90.0, "tokens": 123456, "best_bpb": 0.28}
    meta = {"step": steps, "final": True, "model_config": SHAPE, "config": config, "loop": loop}
    (directory / f"{steps:06d}" / "meta.json").write_text(json.dumps(meta))
    write = lambda name, entries: (directory / name).write_text(
        "".join(json.dumps(e) + "\n" for e in entries)
    )
    write("metrics.jsonl", lines(steps, said))
    if stage == "rl":
        write("rollouts.jsonl", rollouts(steps, said))
    return directory


def write_base(root: pathlib.Path, said: str = "it rained.") -> pathlib.Path:
    """Four stages, their scores, and the report; returns the path of its page."""
    report.reset(root)
    for stage, title in zip(CHECKPOINT_DIRS, ("Base model", *["Chat"] * 3), strict=True):
        write_run(root, stage, said=said, run=said)
        section = f"{title} evaluation" + ("" if stage == "base" else f" {stage}")
        scores = {"ARC-Easy": "31.5% (29.0 to 34.1, n=400)", "probe: names": "90.0% (n=40)"}
        report.log(
            root, section, [report.score_lines(scores | {"val bpb": "0.28"}), said, {said: said}]
        )
    report.generate(root, root, price=12.0)
    return root / "report" / "report.html"
