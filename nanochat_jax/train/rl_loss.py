"""The objective of reinforcement learning, pure: rollouts and rewards to weighted targets.

REINFORCE on the model's own samples: no reference model, no ratio, no clipping. A sampled token
counts its sample's reward less the mean over the samples of its question; tokens that were given
(prompt, tool output, padding) count nothing. The loss is the train step's own, a weighted sum of
each target's nll: `Batch(inputs, targets, weights_ART=policy_weights(...))`.
Source: nanochat `scripts/chat_rl.py`.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from nanochat_jax.train.step import mean_weights


def rollout_rows(
    sequences: Sequence[Sequence[int]],
    masks: Sequence[Sequence[int]],
    pad: int,
    length: int | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """(inputs, targets), int32 `[B, length]`; targets are -1 where the token was not sampled.

    Args:
        sequences: prompt and reply of each sample; masks: 1 where the token was sampled.
        pad: fills the inputs on the right; the original takes `<|assistant_end|>`.
        length: tokens of a row; None: as many as the longest sample needs.

    Raises:
        ValueError: a mask of another length than its sequence, or a sample longer than the rows.
    """
    if [len(s) for s in sequences] != [len(m) for m in masks]:
        raise ValueError("every sequence needs a mask of its own length")
    longest = max(map(len, sequences)) - 1
    width = longest if length is None else length
    if longest > width:
        raise ValueError(f"a sample of {longest + 1} tokens needs rows of {longest}, not {width}")
    # Causal attention never looks to the right: what pads a row changes nothing before it.
    ids = np.full((len(sequences), width + 1), pad, np.int32)
    sampled = np.zeros_like(ids)
    for row, (sequence, mask) in enumerate(zip(sequences, masks, strict=True)):
        ids[row, : len(sequence)] = sequence
        sampled[row, : len(mask)] = mask
    return ids[:, :-1].copy(), np.where(sampled[:, 1:] == 1, ids[:, 1:], -1).astype(np.int32)


def advantages(rewards: np.ndarray) -> np.ndarray:
    """Each reward less the mean of its question's samples (last axis), float32."""
    # The mean is the baseline: it takes out how easy the question is and leaves which of its
    # replies was better. Not divided by the deviation, as GRPO does it: that would lift questions
    # on which nearly all replies agree (arXiv:2503.20783).
    rewards = np.asarray(rewards, np.float32)
    return rewards - rewards.mean(axis=-1, keepdims=True)


def policy_weights(targets_ART: jax.Array, advantages_AR: jax.Array, micro_rows: int) -> jax.Array:
    """What each target's nll counts in the loss of an optimizer step, float32 `[A, R, T]`.

    A micro-batch is `micro_rows` consecutive rows; the loss is the mean over micro-batches of the
    sum of advantage x nll over their sampled tokens, divided by the number of these.
    """
    # By tokens, not by replies: each sampled token of a micro-batch counts the same, in long
    # replies too.
    return mean_weights(targets_ART, micro_rows) * jnp.asarray(advantages_AR)[..., None]
