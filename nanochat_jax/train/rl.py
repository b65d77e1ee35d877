"""The rl stage: the model tries questions whose answers can be checked, and learns from its marks.

On-policy: every step samples replies from the parameters as they are, and takes one step on them.
Source: nanochat `scripts/chat_rl.py`. Two of its flaws are mended: every reply samples its own
first token, and the token that ends a reply is learnt (`--share-first-token`, `--no-learn-stop`).
"""

import dataclasses
import logging
import pathlib
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from nanochat_jax.config import values as config_values
from nanochat_jax.config.paths import base_dir
from nanochat_jax.config.stages import RLTrain
from nanochat_jax.config.steps import rows_per_step
from nanochat_jax.evals.generative import (
    EnginePool,
    GradedProblem,
    SamplingParams,
    answer,
    pass_at_k,
)
from nanochat_jax.models.gpt import Model
from nanochat_jax.tokenizer import Tokenizer
from nanochat_jax.tokenizer.chat_format import ASSISTANT_END
from nanochat_jax.train import beginnings, loop, metrics, recorder, rollouts, stage
from nanochat_jax.train.optimizer import make_optimizer
from nanochat_jax.train.rollouts import Questions
from nanochat_jax.train.schedules import make_schedule

log = logging.getLogger(__name__)


def run(config: RLTrain) -> stage.Section:
    """Passes over the questions (or `num_iterations` steps); returns the report's section.

    Raises:
        FileNotFoundError: no checkpoint to start from, or no data for the mixture.
        ValueError: settings that do not fit together; the message says what would.
    """
    if jax.process_count() > 1:
        raise ValueError("the rl stage runs in one process, over all of its devices; start one")
    root = base_dir()
    start = stage.origin("rl", config, root)
    mark = stage.fingerprint("rl", config, root)
    tokenizer = stage.tokenizer_for(start, root)
    cfg, mesh = start.model_config(), stage.mesh_of(config)
    context = min(config.max_seq_len, cfg.sequence_len)
    check(config, context, mesh.size)
    gpt = stage.gpt_of(cfg, config)
    train, val = (
        Questions(names, root, split, config.task_data or None)
        for names, split in ((config.mixture, "train"), (config.val_mixture, "val"))
    )
    steps = steps_of(config, len(train))
    initial = stage.initial_params(gpt, start, config)
    tx = make_optimizer(
        cfg, config.optim, jax.eval_shape(initial),
        mesh=mesh, compute_dtype=gpt.dtype, lr_scale=config.init_lr_frac,
    )  # fmt: skip
    tag = config.model_tag or start.saved.path.parent.name
    directory = stage.target_directory("rl", tag, root, start.resumed is not None)
    if start.resumed is not None:
        recorder.drop_from(directory, start.resumed.step)
    trials = Trials(config, tokenizer, mesh, context, train, val, directory)
    job = loop.Job(
        stage="rl",
        config=config,
        directory=directory,
        gpt=gpt,
        tokenizer=tokenizer,
        mesh=mesh,
        tx=tx,
        schedule=make_schedule(config.optim, steps),
        initial=initial,
        loader=None,
        experience=trials.experience,
        micro_per_step=rows_per_step(config) // config.device_batch_size,
        steps=steps,
        due=(trials.due(), stage.sample_due(config, tokenizer)),
        fingerprint=mark,
        saved=start.resumed,
    )
    log.info(
        "rl: %d questions, %d steps of %d questions with %d replies each",
        len(train), steps, config.examples_per_step, config.num_samples,
    )  # fmt: skip
    scores = loop.run(job)
    return "Chat RL", [config_values.flatten(config), figures(directory, scores, len(train))]


def check(config: RLTrain, context: int, devices: int) -> None:
    """Raises ValueError for settings that do not fit the model or the mesh."""
    rows, together = rows_per_step(config), config.device_batch_size * devices
    if rows % together:
        fits = [b for b in range(1, rows + 1) if rows % (b * devices) == 0]
        advice = (
            f"set --device-batch-size to one of {', '.join(map(str, fits[-6:]))}"
            if fits
            else f"set --num-samples to a multiple of {together}"
        )
        raise ValueError(
            f"a step of {config.examples_per_step} questions x {config.num_samples} replies does "
            f"not divide into passes of {config.device_batch_size} rows on {devices} device(s); "
            f"{advice}, or use fewer devices with --mesh"
        )
    if config.share_first_token and config.num_samples % config.device_batch_size:
        raise ValueError(
            f"--share-first-token: {config.num_samples} replies are not a multiple of "
            f"device_batch_size {config.device_batch_size}"
        )
    if config.max_new_tokens >= context:
        raise ValueError(
            f"max_new_tokens is {config.max_new_tokens}, but question and reply share a context of "
            f"{context} tokens; set --max-new-tokens to less, such as {context // 2}"
        )


def steps_of(config: RLTrain, questions: int) -> int:
    """Optimizer steps of a run."""
    if config.num_iterations > 0:
        return config.num_iterations
    return max(1, questions // config.examples_per_step) * config.num_epochs


@dataclasses.dataclass
class Trials:
    """What the loop asks for: the rows of a step, made by trying, and pass@k."""

    config: RLTrain
    tokenizer: Tokenizer
    mesh: jax.sharding.Mesh
    context: int
    train: Questions
    val: Questions
    directory: pathlib.Path
    _pool: EnginePool | None = None
    _told: bool = False

    def experience(self, model: Model, step: int) -> dict[str, Any]:
        """The step's questions answered and marked, recorded, as weighted rows."""
        config, count = self.config, self.config.examples_per_step
        asked = range(step * count, (step + 1) * count)
        alike = config.share_first_token
        answered = self._answers(model, self.train, asked, config.num_samples, alike)
        self._tell_cropped(answered)
        tried = rollouts.collect(step, self.train, answered, learn_stop=config.learn_stop)
        recorder.write(self.directory, step, tried.records)
        pad = self.tokenizer.encode_special(ASSISTANT_END)
        rows = rollouts.batch(
            tried, pad, self.context, devices=self.mesh.size, per_pass=config.device_batch_size
        )
        return {**rows, "tokens": tried.written, "numbers": rollouts.numbers(tried)}

    def due(self) -> loop.Due:
        """pass@1 to pass@`eval_samples` over the first questions of the validation mixture."""
        asked, n = self.val.first(self.config.eval_examples), self.config.eval_samples

        def run(model: Model, step: int) -> loop.Scores:
            right = [done.right for done in self._answers(model, self.val, asked, n)]
            share = lambda k: float(np.mean([pass_at_k(r, n, k) for r in right]))
            return {f"val/pass@{k}": share(k) for k in range(1, n + 1)}

        return loop.Due(self.config.eval_every, run)

    def _answers(
        self,
        model: Model,
        questions: Questions,
        asked: Sequence[int],
        samples: int,
        alike: bool = False,
    ) -> list[GradedProblem]:
        """The questions answered by the model, in their order."""
        config, pool = self.config, self._pool_of(model)
        settings = config.max_new_tokens, config.temperature, config.top_k or None, config.seed
        sampling = SamplingParams(samples, *settings)
        if alike:
            together = config.device_batch_size
            return beginnings.answer(
                pool, questions, asked, sampling, grade=questions.reward, together=together
            )
        done = answer(pool, questions, asked, sampling, grade=questions.reward, in_turn=True)
        return sorted(done, key=lambda each: each.index)

    def _tell_cropped(self, answered: Sequence[GradedProblem]) -> None:
        """Says once that questions do not fit into the context."""
        cropped = sum(done.cropped for done in answered)
        if cropped and not self._told:
            self._told = True
            log.warning(
                "%d of %d questions are longer than the %d tokens that the reply leaves them: they "
                "lose their beginning (and so may later ones); lower --max-new-tokens",
                cropped, len(answered), self.context - self.config.max_new_tokens,
            )  # fmt: skip

    def _pool_of(self, model: Model) -> EnginePool:
        """The engines, made once, with the parameters of now."""
        if self._pool is None:
            slots = -(-rows_per_step(self.config) // self.mesh.size)
            self._pool = EnginePool(
                model, self.tokenizer, max_len=self.context, slots=slots, mesh=self.mesh
            )
        else:
            self._pool.set_params(model.params)
        return self._pool


def figures(directory: pathlib.Path, scores: loop.Scores, questions: int) -> dict[str, Any]:
    """The results as the report shows them: where rewards began and where they ended."""
    lines = metrics.read(directory / "metrics.jsonl")
    rewards = [line["train/reward"] for line in lines if "train/reward" in line]
    passed = [line["val/pass@1"] for line in lines if "val/pass@1" in line]
    few = max(1, len(rewards) // 10)
    found: dict[str, Any] = {"Questions": questions}
    if rewards:
        found |= {
            f"Mean reward of the first {few} steps": float(np.mean(rewards[:few])),
            f"Mean reward of the last {few} steps": float(np.mean(rewards[-few:])),
        }
    if passed:
        found |= {"pass@1 before": passed[0], "pass@1 after": passed[-1]}
    shown = stage.figures(scores)
    sampled = shown.pop("Number of training tokens")
    return found | {"Sampled tokens": sampled} | shown
