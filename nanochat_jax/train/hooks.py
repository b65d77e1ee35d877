"""What is measured on the way: bits per byte, samples, CORE, chat scores, pass@k.

A hook is handed the model as it is and returns numbers (or texts) for `metrics.jsonl`. Hooks use
what lies on disk: a run downloads nothing once it has begun.
"""

import dataclasses
import pathlib
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from nanochat_jax.config.stages import BaseTrain, RLTrain, SFTTrain, Stage
from nanochat_jax.data.batch import MicroBatch, one_pass
from nanochat_jax.evals import chatcore, core, samples
from nanochat_jax.evals.bpb import bits_per_byte
from nanochat_jax.evals.chatcore import catalog
from nanochat_jax.evals.generative import GradedProblem, pass_at_k
from nanochat_jax.evals.kept import Kept
from nanochat_jax.hosts import group
from nanochat_jax.models.gpt import Model
from nanochat_jax.tokenizer import Tokenizer

Scores = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Hook:
    """`run(model, step)` every so many steps and at the end of the run.

    `every` -1: never, not even at the end. `first`: also before any step. `name`: what it is called
    where it fails.
    """

    every: int
    run: Callable[[Model, int], Scores]
    first: bool = True
    name: str = "an evaluation"

    def due(self, step: int, last: bool) -> bool:
        if self.every < 0:
            return False
        # At the end whatever the interval: the report is about the finished model.
        return last or ((self.first or step > 0) and step % self.every == 0)


def bits_per_byte_hook(
    config: Stage, tokenizer: Tokenizer, batches: Callable[[], Iterable[MicroBatch]], tokens: int
) -> Hook:
    """`val/bpb` over `tokens` of the validation split, at most one pass of it."""
    token_bytes_V = np.asarray(tokenizer.token_bytes())
    steps = max(1, tokens // (config.device_batch_size * config.max_seq_len))
    # A loader made anew: every evaluation reads the same tokens, so that its scores compare.
    bpb = lambda model: bits_per_byte(model, one_pass(batches(), steps), token_bytes_V, steps)
    run = lambda model, step: {"val/bpb": bpb(model)}
    return Hook(config.eval_every, run, name="bits per byte")


def samples_hook(config: Stage, tokenizer: Tokenizer) -> Hook:
    """Greedy continuations of the config's prompts, as texts."""
    continuations = samples.Continuations(tokenizer, config.sample_prompts)

    def run(model: Model, step: int) -> Scores:
        if not group.chief():
            return {}
        return {
            "samples": continuations(dataclasses.replace(model, params=group.local(model.params)))
        }

    return Hook(config.sample_every if config.sample_prompts else -1, run, False, "samples")


def core_hook(config: BaseTrain, tokenizer: Tokenizer, bundle: pathlib.Path) -> Hook:
    """CORE, if its tasks are on disk."""

    def run(model: Model, step: int) -> Scores:
        most = config.core_metric_max_per_task
        found = core.evaluate(model, tokenizer, bundle, max_per_task=most)
        return {
            "core_metric": found.metric,
            "core_tasks": f"{len(found.tasks)} of {len(found.tasks) + len(found.skipped)}",
            "centered_results": {label: task.centered for label, task in found.tasks.items()},
        }

    # Not before the first step: a model that has learned nothing takes as long to score.
    wanted = config.core_metric_every > 0 and bundle.is_dir()
    return Hook(config.core_metric_every if wanted else -1, run, False, "CORE")


def chat_scores_hook(config: SFTTrain, tokenizer: Tokenizer, root: pathlib.Path) -> Hook:
    """Accuracies of chat tasks whose rows are on disk, and their mean over chance."""
    # A written answer takes far longer than a choice among letters, which is one forward pass: as
    # many rows of each as a score on the way may cost.
    most = {"categorical": config.eval_metrics_max_problems}
    few = lambda task, most: task.view(stop=most) if most > 0 else task
    every, chosen = config.eval_metrics_every, {}
    if every >= 0:
        found, _ = catalog.at_hand(root, config.task_data or None, config.eval_metrics_tasks)
        for name, task in found.items():
            chosen[name] = few(task, most.get(task.kind, config.chatcore_max_sample))
    written = [task for task in chosen.values() if task.kind == "generative"]
    kept = Kept(lambda model: chatcore.engines(model, tokenizer, written))

    def run(model: Model, step: int) -> Scores:
        with kept(model) as pool:
            done = chatcore.evaluate(model, tokenizer, chosen, pool=pool)
        name_of = lambda task: task.replace("-", "_").lower() + "_acc"
        numbers = {name_of(name): task.accuracy for name, task in done.tasks.items()}
        return numbers | {"chatcore_metric": done.metric}

    return Hook(every if chosen else -1, run, False, "chat scores")


def pass_at_k_hook(config: RLTrain, answers: Callable[[Model], Sequence[GradedProblem]]) -> Hook:
    """`val/pass@1` to `val/pass@<eval_samples>` of the questions that `answers` gives."""
    samples = config.eval_samples

    def run(model: Model, step: int) -> Scores:
        right = [done.right for done in answers(model)]
        share = lambda k: float(np.mean([pass_at_k(r, samples, k) for r in right]))
        return {f"val/pass@{k}": share(k) for k in range(1, samples + 1)}

    return Hook(config.eval_every, run, name="pass@k")
