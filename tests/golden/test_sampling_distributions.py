"""The distributions we draw from are the original's, and drawing follows them."""

import jax.numpy as jnp
import numpy as np
import pytest

from nanochat_jax.serve.engine.sampling import sample, sampling_probs
from tests.golden.conftest import files, load_npz
from tests.golden.numbers import absolute

FILES = files("generate_*.npz")


def settings(rows: int, case: dict):
    return (
        jnp.full(rows, case["temperature"], jnp.float32),
        jnp.full(rows, case["top_k"] or 0, jnp.int32),
        jnp.ones(rows, jnp.float32),
    )


@pytest.mark.parametrize("path", FILES)
def test_top_k_and_temperature_give_the_originals_probabilities(path):
    data = load_npz(path)
    logits_BV = jnp.asarray(data["topk.logits"])
    for j, case in enumerate(data["topk.cases.json"]):
        if case["temperature"] > 0:
            probs_BV = sampling_probs(logits_BV, *settings(len(logits_BV), case))
            expected_BV = data[f"topk.case{j}.probs"]
            absolute(probs_BV, expected_BV, "probs", case)
            assert ((np.asarray(probs_BV) > 0) == (expected_BV > 0)).all(), case


@pytest.mark.parametrize("path", FILES)
def test_temperature_zero_takes_the_originals_token(path):
    data = load_npz(path)
    logits_BV = jnp.asarray(data["topk.logits"])
    greedy, whole = jnp.zeros(len(logits_BV)), jnp.ones(len(logits_BV))
    token_B = sample(logits_BV, greedy, greedy.astype(jnp.int32), whole, greedy)
    np.testing.assert_array_equal(token_B, data["topk.greedy"].ravel())
