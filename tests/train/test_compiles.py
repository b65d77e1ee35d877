"""A run compiles while it warms up and never after; else it says so, with what differs."""

import logging

import jax
import jax.numpy as jnp
import pytest

from nanochat_jax.config.stages import BaseTrain, SFTTrain
from nanochat_jax.models.gpt import GPT, Model, init_params
from nanochat_jax.train import loop, setup
from nanochat_jax.train.compiles import JAX_LOGGER, CompileWatch
from tests.evals.core_bundles import three
from tests.train import rl_world

SMALL = dict(device_batch_size=2, max_seq_len=64, mesh="2", num_iterations=6, save_every=2)


def test_work_that_compiles_for_the_second_time_is_named_with_the_shapes_that_differ(caplog):
    watch, double = CompileWatch(), jax.jit(lambda x, y: (x, 2 * y))
    run = lambda *shape: double(jnp.ones(3), jnp.ones(shape))
    with watch.listening():
        with watch.during("a step"):
            run(4, 3)
        assert not watch.late
        with watch.during("another step"):
            run(5, 3)
        assert not watch.late
        with watch.during("a step"):
            run(4, 3)
        assert not watch.late
        with watch.during("a step"), caplog.at_level(logging.WARNING):
            run(6, 3)
    line = "a step compiled jit(<lambda>) again: argument 1 float32[6,3], not float32[4,3]"
    assert line in watch.late and line in caplog.text


def test_where_nobody_listens_jax_logs_as_before():
    logger = logging.getLogger(JAX_LOGGER)
    level = logger.level
    with CompileWatch().listening():
        pass
    assert logger.level == level and not logger.filters


def test_what_jax_would_log_without_the_watch_it_logs_and_nothing_else(caplog):
    logger, said = logging.getLogger(JAX_LOGGER), []
    for level in (logging.DEBUG, logging.INFO):
        with caplog.at_level(level, JAX_LOGGER), CompileWatch().listening():
            logger.debug("a line of %s", logging.getLevelName(level))
        said += [record.getMessage() for record in caplog.records]
        caplog.clear()
    assert said == ["a line of DEBUG"]


def trained(stage, config, root):
    """The loop of a run, when it is done."""
    run = setup.prepare(stage, config, root)
    return loop.train(run, run.first_state())


@pytest.mark.slow
def test_a_base_run_with_evaluations_core_and_samples_compiles_only_in_its_warm_up(text_root):
    (text_root / "eval_bundle").mkdir()
    three(text_root / "eval_bundle", n=4)
    often = dict(eval_every=2, eval_tokens=256, core_metric_every=2, sample_every=2)
    shape = dict(depth=1, aspect_ratio=32, head_dim=32, total_batch_size=256)
    done = trained("base", BaseTrain(**SMALL, **often, **shape), text_root)
    assert {"val/bpb", "core_metric", "samples"} <= done.scores.keys()
    assert done.step == 6 and done.compiles.late == []


@pytest.mark.slow
def test_an_sft_run_with_padded_rows_compiles_a_step_for_each_of_its_widths_alone(base_dir, key):
    chats = [rl_world.exchange("count", " ".join("abcdefghijkl"[: 1 + i])) for i in range(12)]
    rl_world.write_conversations(base_dir, chats)
    rl_world.write_sft(base_dir, Model(GPT(rl_world.SHAPE), init_params(rl_world.SHAPE, key)))
    mixture = dict(mixture=("conversations",), val_mixture=("conversations",), source="sft")
    often = dict(eval_every=2, eval_steps=2, sample_every=2, target_examples_per_step=4)
    done = trained("sft", SFTTrain(**SMALL, **often, **mixture), base_dir)
    assert done.step == 6 and done.compiles.late == []
