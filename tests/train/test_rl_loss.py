"""Rollouts become weighted targets: given tokens count nothing, samples count their advantage."""

import numpy as np
import pytest

from nanochat_jax.train import rl_loss

SEQUENCES = [[1, 2, 3, 4, 5], [1, 2, 6]]
MASKS = [[0, 0, 1, 0, 1], [0, 0, 1]]


def test_only_sampled_tokens_are_targets_and_rows_are_padded():
    inputs, targets = rl_loss.rollout_rows(SEQUENCES, MASKS, pad=9, length=6)
    assert inputs.tolist() == [[1, 2, 3, 4, 5, 9], [1, 2, 6, 9, 9, 9]]
    assert targets.tolist() == [[-1, 3, -1, 5, -1, -1], [-1, 6, -1, -1, -1, -1]]


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="needs rows of 4, not 3"):
        rl_loss.rollout_rows(SEQUENCES, MASKS, pad=9, length=3)
    with pytest.raises(ValueError, match="a mask of its own length"):
        rl_loss.rollout_rows(SEQUENCES, [[0], [1]], pad=9)


def test_advantages_of_a_question_sum_to_nothing():
    got = rl_loss.advantages([[1, 0, 0, 1], [0, 0, 0, 0], [1, 1, 1, 0]])
    np.testing.assert_allclose(got.sum(axis=-1), 0, atol=1e-6)
    assert not got[1].any()


def test_weights_are_advantages_over_the_sampled_tokens_of_a_pass():
    _, targets = rl_loss.rollout_rows(SEQUENCES, MASKS, pad=9)
    weights = rl_loss.policy_weights(targets[None], np.asarray([[1.0, -2.0]]), 2)
    expected = np.where(targets >= 0, np.asarray([[1.0], [-2.0]]), 0) / 3
    np.testing.assert_allclose(weights[0], expected, rtol=1e-6)


def test_a_pass_without_a_sampled_token_weighs_nothing():
    weights = rl_loss.policy_weights(np.full((1, 2, 3), -1), np.ones((1, 2)), 1)
    assert np.isfinite(weights).all() and not weights.any()
