"""A toy that only trying can teach: the rl stage must take it from guessing to mastery."""

import itertools
import time

import numpy as np
import pytest

from nanochat_jax.train import metrics, stages
from tests.train.rl_world import config, exchange, taught, write_conversations, write_sft

LETTERS = "abcdefgh"


@pytest.mark.slow
def test_a_model_that_guesses_learns_what_is_rewarded_within_two_minutes(base_dir):
    """It begins by answering any of eight letters to any question; one of them is rewarded."""
    guesses = [exchange(f"{a}?", b) for a, b in itertools.product(LETTERS, LETTERS)]
    write_conversations(base_dir, [exchange(f"{a}?", "f") for a in LETTERS])
    write_sft(base_dir, taught(guesses, steps=200))
    started = time.process_time()
    stages.run(
        "rl",
        config(
            mixture=("exchanges",),
            val_mixture=("exchanges",),
            num_iterations=60,
            examples_per_step=8,
            num_samples=16,
            device_batch_size=128,
            max_new_tokens=4,
            init_lr_frac=0.2,
            matrix_lr=0.02,
            embedding_lr=0.02,
            unembedding_lr=0.004,
            save_every=-1,
        ),  # fmt: skip
    )
    spent = time.process_time() - started
    lines = metrics.read(base_dir / "chatrl_checkpoints" / "d2" / "metrics.jsonl")
    rewards = [line["train/reward"] for line in lines if "train/reward" in line]
    tens = [round(float(np.mean(rewards[i : i + 10])), 3) for i in range(0, len(rewards), 10)]
    print(f"mean reward of ten steps each: {tens}; {spent:.0f} CPU seconds")
    assert np.mean(rewards[:5]) < 0.2
    assert np.mean(rewards[-5:]) > 0.9
    assert spent < 120
