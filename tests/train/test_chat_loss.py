"""Midtraining and SFT: every loss is a number, whatever the lengths of the conversations."""

import itertools
from functools import partial

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nanochat_jax.config.gpt import GPTConfig
from nanochat_jax.config.optim import OptimConfig
from nanochat_jax.config.stages import MidTrain, SFTTrain
from nanochat_jax.data.chats import mid_loader, sft_loader
from nanochat_jax.models.gpt import GPT, init_params
from nanochat_jax.tokenizer import Tokenizer
from nanochat_jax.train import chat
from nanochat_jax.train.optimizer import make_optimizer
from nanochat_jax.train.schedules import make_schedule
from nanochat_jax.train.step import Batch, TrainState, train_step

T, B = 24, 2
BYTES = Tokenizer({bytes([i]): i for i in range(256)})
CFG = GPTConfig(sequence_len=T, vocab_size=265, n_layer=1, n_head=1, n_kv_head=1, n_embd=8)
TX = make_optimizer(CFG, OptimConfig(), jax.eval_shape(lambda: init_params(CFG, jax.random.key(0))))
STEP = jax.jit(partial(train_step, GPT(CFG), TX, make_schedule(OptimConfig(), 100), B))
LOADERS = {
    "mid": mid_loader,
    "padded": partial(sft_loader, bucket=T),
    "packed": partial(sft_loader, kind="bestfit", buffer_size=4),
}


@pytest.fixture(scope="module")
def fresh():
    return TrainState.create(init_params(CFG, jax.random.key(0)), TX)


def chats(lengths):
    """Conversations of so many bytes, user's and assistant's."""
    says = lambda role, count: {"role": role, "content": role[0] * count}
    return [{"messages": [says("user", u), says("assistant", a)]} for u, a in lengths]


@pytest.mark.parametrize("kind", LOADERS)
@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 60), st.integers(0, 60)), min_size=1, max_size=9))
def test_no_mixture_of_lengths_makes_a_loss_that_is_no_number(kind, fresh, lengths):
    loader = LOADERS[kind](chats(lengths), BYTES, B, T, prefetch=0)
    fits = any(u + a + 5 <= T + 1 for u, a in lengths)  # with its five marks
    if kind == "packed" and not fits:
        with pytest.raises(ValueError, match="--max-seq-len"):
            next(iter(loader))
        return
    state, taught = fresh, 0
    for batch in itertools.islice(loader, 6):
        rows = Batch(batch.inputs[None], batch.targets[None], 0.0)
        state, metrics = STEP(state, rows)
        taught += int((batch.targets >= 0).sum())
        assert np.isfinite([float(v) for v in metrics.values()]).all()
        if batch.last:
            break
    assert taught or kind == "padded"  # a row cut before its answer is all that padded has
    assert all(np.isfinite(p).all() for p in jax.tree.leaves(jax.device_get(state.params)))


@pytest.mark.parametrize("config", [MidTrain(), SFTTrain(), SFTTrain(packing="bestfit")])
@pytest.mark.parametrize("steps", [None, 1, 7])
def test_rates_begin_at_their_peak_and_never_turn_negative(config, steps):
    schedule = chat._schedule(config, steps)
    at = lambda step, progress: float(schedule(step, progress).lr_multiplier)
    assert at(0, 0.0) == 1.0
    rest = [at(i, i / 6 * 1.3) for i in range(steps or 7)]  # a loader's progress may overshoot
    assert all(0.0 <= b <= a for a, b in itertools.pairwise(rest))
    assert steps is None or rest[-1] > 0.0


def test_rates_fall_over_the_counted_steps_however_little_of_the_data_they_see():
    schedule = chat._schedule(MidTrain(), 10)
    rates = [float(schedule(i, 0.001 * i).lr_multiplier) for i in range(10)]
    np.testing.assert_allclose(rates[-2:], [1.0, 0.5], rtol=1e-5)
