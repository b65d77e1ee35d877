"""The base stage: a model from nothing (or from `--init`) on packed documents."""

import dataclasses
import logging
from typing import Any

import jax

from nanochat_jax.config import load as config_load
from nanochat_jax.config.gpt import GPTConfig
from nanochat_jax.config.stages import BaseTrain, base_dir
from nanochat_jax.data import loader, shards
from nanochat_jax.models.gpt import init_params
from nanochat_jax.tokenizer import Tokenizer
from nanochat_jax.train import loop, scaling, stage
from nanochat_jax.train.optimizer import make_optimizer
from nanochat_jax.train.schedules import make_schedule
from nanochat_jax.train.tokenizer import find_data

log = logging.getLogger(__name__)


def run(config: BaseTrain) -> stage.Section:
    """Trains to the horizon and returns the section of the report.

    Raises:
        FileNotFoundError: no shards, no tokenizer, or nothing to resume.
        ValueError: settings that do not fit together; the message says what would.
    """
    root = base_dir()
    start = stage.origin("base", config, root)
    data = find_data(root, config.embedded_world)
    tokenizer = stage.tokenizer_for(start, root)
    cfg = start.model_config() or model_config(config, tokenizer.get_vocab_size())
    config = dataclasses.replace(config, max_seq_len=cfg.sequence_len)
    plan = scaling.plan(cfg, config)
    mesh = stage.mesh_of(config)
    job = _job(config, cfg, start, tokenizer, data, plan, mesh)
    log.info(summary(cfg, config, plan, mesh))
    scores = loop.run(job)
    return "Base model training", [config_load.flatten(config), _figures(cfg, plan, mesh, scores)]
