"""A base directory as a small chain leaves it, made by hand; and one full of evil texts."""

import json
import math
import pathlib

from nanochat_jax import report
from nanochat_jax.config.paths import CHECKPOINTS
from nanochat_jax.config.resolve import SECTIONS
from nanochat_jax.config.values import flatten
from nanochat_jax.results import EVALUATION, Check, Exchange, Score, Section
from nanochat_jax.train import rollout_log

SHAPE = {
    "n_layer": 2, "n_head": 1, "n_kv_head": 1, "n_embd": 32, "vocab_size": 300, "sequence_len": 64,
}  # fmt: skip
EVIL = "</script><script>alert(1)</script><img src=http://x.invalid/y onerror=alert(2)>\"'`|\ud83d"


def lines(steps: int, said: str) -> list[dict]:
    """The metrics of a run that got better."""
    found = []
    for i in range(steps):
        if i % 10 == 0:
            found.append(
                {"step": i, "val/bpb": 1 / (1 + i), "val/pass@1": i / steps, "val/pass@8": 0.9}
            )
        if i % 20 == 19:
            found.append({"step": i, "samples": [f"One day, {said}", said]})
        numbers = {"train/loss": 1 + math.exp(-i), "train/lr_multiplier": 1 - i / steps}
        speed = {"tokens_per_s": 5000.0 if i else 3.0, "step_ms": 100.0}
        found.append({"step": i, **numbers, **speed, "train/reward": i / steps})
    return found


def rollouts(step: int, steps: int, said: str) -> list[dict]:
    """A step's rollouts of a run whose answers became right half-way."""
    call = "<|python_start|>48+37<|python_end|><|output_start|>85<|output_end|>"
    said = said.replace("\ud83d", "?")  # what a tokenizer gives is whole
    about = {"step": step, "example": 3, "task": "GSM8K", "question": said}
    reply = {
        "reply": f"{call} {said}", "reward": float(step >= steps // 2), "advantage": 0.5,
        "finish": "length" if step % 2 else "stop", "ids": [1, 2], "mask": [1, 0], "tokens": 2,
    }  # fmt: skip
    return [{**about, "sample": sample, **reply} for sample in range(9)]


def exchanges(said: str) -> list[Exchange]:
    """Two kinds, of one of which half is wrong."""
    call = "<|python_start|>48+37<|python_end|><|output_start|>85<|output_end|>"
    sums = [Exchange("sum", f"{i}? {said}", f"{call} {said}", i % 2 == 0, said) for i in range(70)]
    return [Exchange("fact", said, said, True), *sums, Exchange("a story", "tell", said)]


def write_run(
    root: pathlib.Path, stage: str, steps: int = 60, said: str = "it rained.", **settings
) -> pathlib.Path:
    """A checkpoint directory without arrays."""
    directory = root / CHECKPOINTS[stage] / "d2"
    (directory / f"{steps:06d}").mkdir(parents=True)
    config = flatten(SECTIONS[stage if stage in SECTIONS else "sft"]())
    config |= {"sample_prompts": ["One day,", "The"], **settings}
    loop = {"train_s": 90.0, "tokens": 123456, "best_bpb": 0.28}
    meta = {"step": steps, "final": True, "model_config": SHAPE, "config": config, "loop": loop}
    (directory / f"{steps:06d}" / "meta.json").write_text(json.dumps(meta))
    written = (json.dumps(entry) + "\n" for entry in lines(steps, said))
    (directory / "metrics.jsonl").write_text("".join(written))
    for step in range(steps if stage == "rl" else 0):
        rollout_log.write(directory, step, rollouts(step, steps, said))
    return directory


def write_base(root: pathlib.Path, said: str = "it rained.") -> pathlib.Path:
    """Four stages, their scores, and the report; returns the path of its page."""
    report.reset(root)
    scores = [
        Score("ARC-Easy", 0.315, "share", 0.29, 0.341, n=400, chance=0.25),
        Score("probe: names", 0.9, "share", 0.769, 0.96, n=40, count_shown=True),
        Score("val bpb", 0.28, lower_is_better=True),
    ]
    checks = [
        Check(
            "ARC-Easy", "31.5 %, options shuffled 25.9 %, guessing 25 %: it may be guessing", False
        ),
        Check("probe: names", f"it reads the question {said}"),
    ]
    for stage in CHECKPOINTS:
        write_run(root, stage, said=said, run=said)
        texts = {"texts": [said], "figures": {said: said}, "exchanges": exchanges(said)}
        found = Section(
            EVALUATION[stage], scores=scores, details=scores[:1], checks=checks, **texts
        )
        report.write(root, found, 120.0)
    report.generate(root, root, price=12.0)
    return root / "report" / "report.html"
