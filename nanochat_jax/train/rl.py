"""The rl stage: the model answers questions whose answers can be checked, and what earned more than
its other tries becomes likelier.

On-policy REINFORCE, what is left of GRPO when all that a small run does not need is taken away:
every step samples from the parameters as they are and takes one gradient step on those samples, so
there is no ratio of old and new policy to clip (PPO); no reference model and no KL term hold it
near where it began; and a reward counts by how far it lies from the mean of its question's samples,
not divided by their deviation.
Source: nanochat `scripts/chat_rl.py`. Two of its flaws are mended: every reply samples its own
first token, and the token that ends a reply is trained (`--share-first-token`, `--no-learn-stop`).
"""

import dataclasses
import functools
import logging
import pathlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import numpy as np

from nanochat_jax.config.stages import RLTrain, rows_per_step
from nanochat_jax.data import ledger
from nanochat_jax.evals.generative import (
    EnginePool,
    GradedProblem,
    SamplingParams,
    answer,
)
from nanochat_jax.evals.kept import Kept
from nanochat_jax.hosts import group
from nanochat_jax.models.gpt import Model
from nanochat_jax.tokenizer import Tokenizer
from nanochat_jax.tokenizer.chat_format import ASSISTANT_END
from nanochat_jax.train import chat, hooks, metrics, rollout_log, rollouts
from nanochat_jax.train.curriculum import Curriculum, Figures, RunContext, StepRows, Upcoming
from nanochat_jax.train.rollouts import Questions

log = logging.getLogger(__name__)


def curriculum(config: RLTrain, context: RunContext) -> Curriculum:
    """Passes over the questions, or `num_iterations` steps.

    Raises:
        FileNotFoundError: no data for the mixture.
        ValueError: settings that do not fit the model, the mesh or the tasks.
    """
    length, directory = min(config.max_seq_len, context.cfg.sequence_len), context.directory
    rows = context.micro_rows
    check(config, length, rows)
    train, val = (
        Questions(names, context.root, split, config.task_data or None)
        for names, split in ((config.mixture, "train"), (config.val_mixture, "val"))
    )
    if context.recorded:
        ledger.check_mixture(train.mixture, context.recorded)
    files = chat.files(config, context.root)
    read = ledger.of_mixture(train.mixture, files, context.root)
    steps = config.num_iterations
    if steps <= 0:
        steps = max(1, len(train) // config.examples_per_step) * config.num_epochs
    sampler = Sampler(config, context.tokenizer, context.mesh, length, rows)
    few, samples = val.first(config.eval_examples), config.eval_samples
    return Curriculum(
        summary=f"{len(train):,} questions ({' '.join(config.mixture)}), "
        f"{config.examples_per_step} a step with {config.num_samples} replies each",
        steps=steps,
        rows=rollout_rows(sampler, train, directory, steps),
        hooks=(
            hooks.pass_at_k_hook(config, lambda model: sampler.answers(model, val, few, samples)),
            hooks.samples_hook(config, context.tokenizer),
        ),
        figures=lambda common: figures(directory, common, len(train)),
        data=read | {"micro_rows": rows},
    )


def check(config: RLTrain, context: int, micro_rows: int) -> None:
    """Raises ValueError for settings that do not fit each other or the model."""
    if config.share_first_token and config.num_samples % micro_rows:
        raise ValueError(
            f"--share-first-token: {config.num_samples} replies are not a multiple of "
            f"device_batch_size {micro_rows}"
        )
    if config.max_new_tokens >= context:
        raise ValueError(
            f"max_new_tokens is {config.max_new_tokens}, but question and reply share a context of "
            f"{context} tokens; set --max-new-tokens to less, such as {context // 2}"
        )


@dataclasses.dataclass
class Sampler:
    """Questions answered by the model of now, on every device of the mesh.

    The engines are made at the first question and kept: to compile them takes longer than a step.
    """

    config: RLTrain
    tokenizer: Tokenizer
    mesh: jax.sharding.Mesh
    context: int
    micro_rows: int  # replies that the loss is first averaged over
    kept: Kept[EnginePool] = dataclasses.field(init=False)

    def __post_init__(self) -> None:
        slots = -(-rows_per_step(self.config) // self.mesh.size)
        where = dict(max_len=self.context, slots=slots, mesh=self.mesh)
        self.kept = Kept(lambda model: EnginePool(model, self.tokenizer, **where))

    def rollouts(self, model: Model, questions: Questions, step: int) -> list[GradedProblem]:
        """The replies to the step's questions, which are a function of parameters and step alone:
        what a killed run sampled, its continuation samples again."""
        config = self.config
        chosen = range(step * config.examples_per_step, (step + 1) * config.examples_per_step)
        if not config.share_first_token:
            return self.answers(model, questions, chosen, config.num_samples)
        sampling, together = self._sampling(config.num_samples), self.micro_rows
        with self.kept(model) as engines:
            own = lambda few: rollouts.answer_alike(engines, questions, few, sampling, together)
            done = group.divided(chosen, own, len(engines.engines))
        return sorted(done, key=lambda each: each.index)

    def answers(
        self, model: Model, questions: Questions, chosen: Sequence[int], samples: int
    ) -> list[GradedProblem]:
        """The chosen questions with `samples` replies each, in their order."""
        settings = dict(sampling=self._sampling(samples), grade=questions.reward)
        # In turn, so that each engine does the same work in every run. Answers come as they are
        # finished; rows are in the order of the questions.
        with self.kept(model) as engines:
            done = list(answer(engines, questions, chosen, **settings, in_turn=True))
        return sorted(done, key=lambda each: each.index)

    def _sampling(self, samples: int) -> SamplingParams:
        c = self.config
        return SamplingParams(samples, c.max_new_tokens, c.temperature, c.top_k or None, c.seed)


def rollout_rows(sampler: Sampler, questions: Questions, directory: pathlib.Path, steps: int):
    """The row source of the stage: each step's replies, scored, recorded, as weighted rows."""
    config, pad = sampler.config, sampler.tokenizer.encode_special(ASSISTANT_END)
    # Cached, so that it is said once a run.
    warn = functools.cache(lambda: log.warning(
        "questions are longer than the %d tokens that the reply leaves them: they lose their "
        "beginning (and so may later ones); lower --max-new-tokens",
        sampler.context - config.max_new_tokens,
    ))  # fmt: skip

    def make(model: Callable[[], Model], step: int, first: int) -> StepRows:
        # What a killed run logged behind its last checkpoint is sampled again, to the same replies.
        if group.chief() and step == first:
            rollout_log.drop_from(directory, first)
        answered = sampler.rollouts(model(), questions, step)
        if any(done.cropped for done in answered):
            warn()
        made, records = rollouts.rows(
            step, questions, answered, pad, sampler.context, micro_rows=sampler.micro_rows,
            per_pass=sampler.mesh.size * config.device_batch_size, learn_stop=config.learn_stop,
        )  # fmt: skip
        if group.chief():
            rollout_log.write(directory, step, records)
        return made

    def rows(first: int, _: Any) -> Iterator[Upcoming]:
        for step in range(first, steps):
            yield Upcoming(None, functools.partial(make, step=step, first=first), None)
        yield Upcoming(None, None, None)

    return rows


def figures(directory: pathlib.Path, common: Figures, questions: int) -> Figures:
    """The results as the report shows them: where rewards began and where they ended."""
    # From the file, not from this process: a run may have been resumed several times.
    lines = metrics.read(directory / "metrics.jsonl")
    rewards = [line["train/reward"] for line in lines if "train/reward" in line]
    passed = [line["val/pass@1"] for line in lines if "val/pass@1" in line]
    few = max(1, len(rewards) // 10)
    found: Figures = {"Questions": questions}
    if rewards:
        found[f"Mean reward of the first {few} steps"] = float(np.mean(rewards[:few]))
        found[f"Mean reward of the last {few} steps"] = float(np.mean(rewards[-few:]))
    if passed:
        found |= {"pass@1 before": passed[0], "pass@1 after": passed[-1]}
    rest = dict(common)
    return found | {"Sampled tokens": rest.pop("Number of training tokens")} | rest
