"""Midtraining and SFT: every loss is a number, whatever the lengths of the conversations."""

import dataclasses
import itertools
from functools import partial

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nanochat_jax import sharding
from nanochat_jax.config.gpt import GPTConfig
from nanochat_jax.config.stages import MidTrain, SFTTrain
from nanochat_jax.data.chats import mid_loader, sft_loader
from nanochat_jax.models.gpt import init_params
from nanochat_jax.tokenizer import Tokenizer
from nanochat_jax.train import setup
from nanochat_jax.train.curriculum import StepRows
from nanochat_jax.train.schedules import run_schedule

T, B = 24, 2
BYTES = Tokenizer({bytes([i]): i for i in range(256)})
CFG = GPTConfig(sequence_len=T, vocab_size=265, n_layer=1, n_head=1, n_kv_head=1, n_embd=8)
CONFIG = SFTTrain(device_batch_size=B, max_seq_len=T, init_lr_frac=1.0)
LOADERS = {
    "mid": mid_loader,
    "padded": partial(sft_loader, bucket=T),
    "packed": partial(sft_loader, kind="bestfit", buffer_size=4),
}


@pytest.fixture(scope="module")
def trainer():
    return setup.trainer(CONFIG, CFG, sharding.make_mesh("1"), steps=100)


def chats(lengths):
    """Conversations of so many bytes, user's and assistant's."""
    says = lambda role, count: {"role": role, "content": role[0] * count}
    return [{"messages": [says("user", u), says("assistant", a)]} for u, a in lengths]


@pytest.mark.parametrize("kind", LOADERS)
@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 60), st.integers(0, 60)), min_size=1, max_size=9))
def test_no_mixture_of_lengths_makes_a_loss_that_is_no_number(kind, trainer, lengths):
    loader = LOADERS[kind](chats(lengths), BYTES, B, T, prefetch=0)
    fits = any(u + a + 5 <= T + 1 for u, a in lengths)  # with its five markers
    if kind == "packed" and not fits:
        with pytest.raises(ValueError, match="--max-seq-len"):
            next(iter(loader))
        return
    state, supervised = trainer.fresh_state(init_params(CFG, jax.random.key(0))), 0
    for batch in itertools.islice(loader, 6):
        rows = StepRows(batch.inputs[None], batch.targets[None], tokens=B * T)
        state, metrics = trainer.step(state, trainer.place(rows))
        supervised += int((batch.targets >= 0).sum())
        assert np.isfinite([float(v) for v in metrics.values()]).all()
        if batch.last:
            break
    assert supervised or kind == "padded"  # a row cut before its answer is all that padded has
    assert all(np.isfinite(p).all() for p in jax.tree.leaves(jax.device_get(state.params)))


@pytest.mark.slow
def test_rows_padded_to_one_of_four_widths_have_the_loss_of_rows_padded_to_the_longest():
    config = dataclasses.replace(CONFIG, max_seq_len=256)
    trainer = setup.trainer(
        config, dataclasses.replace(CFG, sequence_len=256), sharding.make_mesh("1"), steps=9
    )
    some, found = chats([(7, 9), (40, 30), (3, 60), (90, 20)]), {}
    for bucket in (None, 1):
        loader = sft_loader(some, BYTES, B, 256, bucket=bucket, prefetch=0)
        state = trainer.fresh_state(init_params(trainer.gpt.cfg, jax.random.key(0)))
        found[bucket] = []
        for batch in itertools.islice(loader, 2):
            rows = StepRows(batch.inputs[None], batch.targets[None], tokens=B * T)
            state, metrics = trainer.step(state, trainer.place(rows))
            width = batch.inputs.shape[1]
            found[bucket].append((width, float(metrics["train/loss"])))
    assert [[width for width, _ in few] for few in found.values()] == [[128, 128], [74, 114]]
    few, exact = ([loss for _, loss in some] for some in found.values())
    np.testing.assert_allclose(few, exact, rtol=1e-6)


@pytest.mark.parametrize("config", [MidTrain(), SFTTrain(), SFTTrain(packing="bestfit")])
@pytest.mark.parametrize("steps", [None, 1, 7])
def test_rates_begin_at_their_peak_and_never_turn_negative(config, steps):
    schedule = run_schedule(config.optim, steps)
    at = lambda step, progress: float(schedule(step, progress).lr_multiplier)
    assert at(0, 0.0) == 1.0
    rest = [at(i, i / 6 * 1.3) for i in range(steps or 7)]  # a loader's progress may overshoot
    assert all(0.0 <= b <= a for a, b in itertools.pairwise(rest))
    assert steps is None or rest[-1] > 0.0


def test_rates_fall_over_the_counted_steps_however_little_of_the_data_they_see():
    schedule = run_schedule(MidTrain().optim, 10)
    rates = [float(schedule(i, 0.001 * i).lr_multiplier) for i in range(10)]
    np.testing.assert_allclose(rates[-2:], [1.0, 0.5], rtol=1e-5)
