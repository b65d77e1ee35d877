"""A step that does not fit: one message with the batch that does, found by compiling."""

import dataclasses
import itertools
import shlex
import sys
from functools import partial

import jax
import jax.numpy as jnp
import pytest

from nanochat_jax import sharding
from nanochat_jax.config.gpt import GPTConfig
from nanochat_jax.config.stages import BaseTrain
from nanochat_jax.train import memory, setup, stages

CFG = GPTConfig(sequence_len=64, vocab_size=512, n_layer=1, n_head=1, n_kv_head=1, n_embd=32)
CONFIG = BaseTrain(device_batch_size=8, max_seq_len=64, num_iterations=9, total_batch_size=1024)
SIZES = [1, 2, 4, 8, 16]
PEAKS = {"none": 120, "dots": 96, "full": 40}
OUT = jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: ran out of memory")


def peak_of(config):
    return PEAKS[config.remat] * config.device_batch_size // 8


@pytest.fixture
def command(monkeypatch):
    """The command that the tests pretend to be."""
    typed = "-m scripts.train --stage base --device_batch_size=8 --depth 12"
    monkeypatch.setattr(sys, "orig_argv", ["/usr/bin/python3", *shlex.split(typed)])


@pytest.mark.parametrize(
    ("limit", "kept"), [(0, "none"), (130, "none"), (119, "dots"), (40, "full")]
)
def test_remat_is_the_first_that_fits_and_none_where_no_limit_is_known(limit, kept):
    assert memory.choose_remat(CONFIG, SIZES, peak_of, limit).remat == kept


def test_remat_that_was_asked_for_is_taken_without_a_compilation():
    asked = dataclasses.replace(CONFIG, remat="dots")
    assert memory.choose_remat(asked, SIZES, lambda _: 1 / 0, 100) == asked


def test_a_step_that_its_compiler_refuses_does_not_fit_and_other_errors_are_errors():
    def refused(config, error=OUT):
        if config.remat == "none":
            raise error
        return 50

    assert memory.choose_remat(CONFIG, SIZES, refused, 100).remat == "dots"
    broken = jax.errors.JaxRuntimeError("INTERNAL: broken")
    with pytest.raises(jax.errors.JaxRuntimeError, match="INTERNAL"):
        memory.choose_remat(CONFIG, SIZES, partial(refused, error=broken), 100)


def test_the_largest_batch_is_found_in_few_compilations():
    tried = []
    count = lambda config: tried.append(config.device_batch_size) or 10 * config.device_batch_size
    sizes = list(range(1, 33))
    assert memory.largest(CONFIG, sizes, count, limit=135) == (13, 130)
    assert len(tried) <= 6
    assert memory.largest(CONFIG, sizes, count, limit=9) == (0, 0)


def test_when_not_one_row_fits_the_message_names_what_else_there_is(command):
    with pytest.raises(ValueError, match="fewer do not fit either; use more devices with --mesh"):
        memory.choose_remat(CONFIG, SIZES, peak_of, limit=1)


@pytest.mark.slow
def test_a_compiled_step_over_the_limit_is_refused_with_the_largest_batch_that_fits(command):
    """The program's own step, compiled for this CPU, against a limit between 2 and 4 rows."""
    mesh = sharding.make_mesh("1")
    bytes_of = partial(setup.peak_bytes, cfg=CFG, mesh=mesh)
    peaks = {
        rows: bytes_of(dataclasses.replace(CONFIG, device_batch_size=rows, remat="full"))
        for rows in (2, 4)
    }
    assert peaks[2] < peaks[4]
    sizes = setup.batch_sizes(CONFIG, CFG, mesh)
    assert sizes == SIZES
    with pytest.raises(ValueError) as refused:
        memory.choose_remat(CONFIG, sizes, bytes_of, limit=(peaks[2] + peaks[4]) // 2)
    said = str(refused.value)
    assert said.startswith(
        "out of memory: a step needs 0.0 GB with --remat full, of 0.0 GB a device"
    )
    assert "largest batch that fits is 2 (" in said
    assert said.endswith(
        "type python -m scripts.train --stage base --depth 12 --device-batch-size 2"
    )


def run_out(monkeypatch, step, **settings):
    """What a base run says whose device runs out of memory at that step.

    XLA's own error, from an array that no machine has room for.
    """
    # The first rows are placed once more before: for them the step is compiled.
    place, count = setup.Trainer.place, itertools.count(-1)
    room = lambda: next(count) < step or jnp.zeros(2**46)
    monkeypatch.setattr(setup.Trainer, "place", lambda *args: room() and place(*args))
    shape = dict(depth=1, aspect_ratio=32, head_dim=32, mesh="1", eval_every=-1, sample_every=-1)
    with pytest.raises(ValueError) as refused:
        stages.run("base", dataclasses.replace(CONFIG, **shape, **settings))
    return str(refused.value)


def test_a_device_that_runs_out_at_the_first_step_ends_the_run_with_the_same_message(
    text_root, command, monkeypatch
):
    said = run_out(monkeypatch, step=0)
    assert "XLA asked for 281475.0 GB at once" in said
    assert "the largest batch that fits is 4 (" in said and said.endswith("--device-batch-size 4")


@pytest.mark.parametrize(
    ("typed", "more"), [("scripts.train base", " --resume"), ("scripts.speedrun", "")]
)
def test_what_was_saved_is_gone_on_with_by_the_command_to_type(typed, more, text_root, monkeypatch):
    monkeypatch.setattr(sys, "orig_argv", ["python3", "-m", *typed.split()])
    said = run_out(monkeypatch, step=1, save_every=1)
    assert said.endswith(f"type python -m {typed} --device-batch-size 4{more}")
    # What lies there now is an earlier run to one that has not begun.
    said = run_out(monkeypatch, step=-1)
    assert said.endswith(f"type python -m {typed} --device-batch-size 4")


def test_the_size_that_xla_names_is_told_in_words():
    for text, said in (
        ("RESOURCE_EXHAUSTED: Out of memory while trying to allocate 1234567890 bytes.", "1.2 GB"),
        ("RESOURCE_EXHAUSTED: Out of memory allocating 98000000000 bytes.", "98.0 GB"),
        ("RESOURCE_EXHAUSTED: Out of memory while trying to allocate 17.00GiB.", "17.00GiB"),
        ("RESOURCE_EXHAUSTED: no size", "could not allocate what it needs"),
    ):
        assert said in memory.asked_for(jax.errors.JaxRuntimeError(text))
