"""What mid and sft share: a checkpoint, a mixture of conversations, and a loop over them."""

import dataclasses
import logging
import pathlib
from typing import Any

import jax

from nanochat_jax import tasks
from nanochat_jax.checkpoint import store
from nanochat_jax.config import values as config_values
from nanochat_jax.config.gpt import flops_per_token
from nanochat_jax.config.paths import base_dir
from nanochat_jax.config.stages import MidTrain, SFTTrain
from nanochat_jax.config.steps import tokens_per_step
from nanochat_jax.data.chats import mid_loader, sft_loader
from nanochat_jax.evals import chatcore
from nanochat_jax.evals.chatcore import catalog
from nanochat_jax.models.gpt import Model
from nanochat_jax.tokenizer import Tokenizer
from nanochat_jax.train import loop, stage
from nanochat_jax.train.optimizer import make_optimizer
from nanochat_jax.train.schedules import Schedule, make_schedule

log = logging.getLogger(__name__)


def run(name: str, config: MidTrain | SFTTrain) -> list[Any]:
    """Trains the stage `name` and returns the items of its section of the report.

    Raises:
        FileNotFoundError: no checkpoint to start from, or no data for the mixture.
        ValueError: settings that do not fit together; the message says what would.
    """
    root = base_dir()
    start = stage.origin(name, config, root)
    mark = stage.fingerprint(name, config, root)
    tokenizer = stage.tokenizer_for(start, root)
    cfg = start.model_config()
    mesh = stage.mesh_of(config)
    gpt = stage.gpt_of(cfg, config)
    data = Data(name, config, tokenizer)
    steps = _steps(name, config, len(data.train))
    initial = stage.initial_params(gpt, start, config)
    tx = make_optimizer(
        cfg,
        config.optim,
        jax.eval_shape(initial),
        mesh=mesh,
        compute_dtype=gpt.dtype,
        lr_scale=config.init_lr_frac,
    )
    tag = config.model_tag or start.saved.path.parent.name
    job = loop.Job(
        stage=name,
        config=config,
        directory=stage.target_directory(name, tag, root, start.resumed is not None),
        gpt=gpt,
        tokenizer=tokenizer,
        mesh=mesh,
        tx=tx,
        schedule=_schedule(config, steps),
        initial=initial,
        loader=data.batches("train"),
        micro_per_step=stage.micro_per_step(config, tokens_per_step(config), mesh),
        steps=steps,
        due=(data.due(), *data.chat_due(root), stage.sample_due(config, tokenizer)),
        fingerprint=mark,
        saved=start.resumed,
        warm_optimizer=_warm(config, start),
        flops_per_token=flops_per_token(cfg),
    )
    log.info("%s: %d rows in the mixture, %s steps", name, len(data.train), steps or "one pass of")
    scores = loop.run(job)
    return [
        config_values.flatten(config),
        stage.figures(scores) | {"Training rows": len(data.train)},
    ]


@dataclasses.dataclass(frozen=True)
class Data:
    """The mixtures of a chat stage and the loaders over them."""

    stage: str
    config: MidTrain | SFTTrain
    tokenizer: Tokenizer

    @property
    def train(self) -> tasks.Task:
        return self._task(self.config.mixture, "train")

    def _task(self, names: tuple[str, ...], split: str) -> tasks.Task:
        folder = self.config.task_data or None
        return tasks.build(names, base_dir(), split, stage=self.stage, task_data=folder)

    def batches(self, split: str) -> Any:
        """A grain dataset of micro-batches of the `train` or `val` mixture."""
        config = self.config
        names = config.mixture if split == "train" else config.val_mixture
        task, rows, T = self._task(names, split), config.device_batch_size, config.max_seq_len
        if self.stage == "mid":
            return mid_loader(task, self.tokenizer, rows, T)
        return sft_loader(task, self.tokenizer, rows, T, kind=config.packing)

    def due(self) -> loop.Due:
        """Bits per byte of the validation mixture."""
        tokens = getattr(self.config, "eval_steps", 0) * self.config.device_batch_size
        tokens *= self.config.max_seq_len
        config = dataclasses.replace(self.config, eval_tokens=tokens or self.config.eval_tokens)
        return stage.bpb_due(config, lambda: self.batches("val"), self.tokenizer)

    def chat_due(self, root: pathlib.Path) -> tuple[loop.Due, ...]:
        """Chat scores of SFT, of the tasks whose rows are on disk: a run fetches nothing."""
        config = self.config
        if not isinstance(config, SFTTrain) or config.eval_metrics_every < 0:
            return ()
        found, _ = catalog.at_hand(root, config.task_data or None, config.eval_metrics_tasks)
        most = lambda task: (
            config.eval_metrics_max_problems
            if task.kind == "categorical"
            else config.chatcore_max_sample
        )
        asked = {
            name: task.view(stop=most(task)) if most(task) > 0 else task
            for name, task in found.items()
        }

        def run(model: Model, step: int) -> loop.Scores:
            done = chatcore.evaluate(model, self.tokenizer, asked)
            numbers = {
                k.replace("-", "_").lower() + "_acc": t.accuracy for k, t in done.tasks.items()
            }
            return numbers | {"chatcore_metric": done.metric}

        return (loop.Due(config.eval_metrics_every, run, first=False),) if asked else ()


def _schedule(config: MidTrain | SFTTrain, steps: int | None) -> Schedule:
    """Rates by the share of the run that is over: of its steps where they are counted, else of the
    pass over the mixture."""
    optim = config.optim
    if steps is None and optim.lr_schedule != "progress":
        straight = dict(warmup_ratio=0.0, warmdown_ratio=1.0, final_lr_frac=0.0)
        straight = straight if optim.lr_schedule == "linear" else {}
        optim = dataclasses.replace(optim, lr_schedule="progress", **straight)
    schedule = make_schedule(optim, steps or 1)
    if steps is None:
        return schedule
    return lambda step, progress=0.0: schedule(step, step / steps)


def _warm(config: MidTrain | SFTTrain, start: stage.Origin) -> store.Saved | None:
    """The checkpoint whose optimizer state is gone on with, if that is wanted and can be."""
    if not getattr(config, "load_optimizer", 0) or start.source is None or start.resumed:
        return None
    theirs = start.source.meta.get("config") or {}
    if not start.source.has_optimizer:
        log.warning("%s holds no optimizer state: it begins afresh", start.source.path)
        return None
    if bool(theirs.get("muon_beta2")) != bool(config.optim.muon_beta2):
        log.warning("the optimizer of %s is of another recipe: it begins afresh", start.source.path)
        return None
    return start.source


def _steps(name: str, config: MidTrain | SFTTrain, rows: int) -> int | None:
    """Optimizer steps; None: until the data have been seen once."""
    if config.num_iterations > 0:
        return config.num_iterations
    if name == "sft" and config.packing == "padded":
        return max(1, rows // config.target_examples_per_step) * config.num_epochs
    return None
