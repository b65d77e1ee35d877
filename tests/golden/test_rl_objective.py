"""The objective of reinforcement learning equals the original's, gradients included."""

import functools
import re

import jax
import numpy as np
import pytest

from nanochat_jax.interop.names import to_nanochat
from nanochat_jax.models.loss import token_nll
from nanochat_jax.train import rl_loss, step
from tests.golden.conftest import files, load_npz
from tests.golden.models import golden_model
from tests.golden.numbers import absolute

RUN = re.compile(r"(?P<case>.+)\.passes(?P<passes>\d+)\.ex(?P<examples>\d+)\.loss")


def found(pattern: str) -> list:
    """A parameter (path, name) for each key of each file that matches."""
    parameters = []
    for p in files("rl_objective_*.npz"):
        keys = load_npz(p.values[0]) if p.values[0] else []
        names = sorted({m[1] for k in keys if (m := re.fullmatch(pattern, k))})
        names = names if p.values[0] else ["absent"]
        parameters += [pytest.param(p.values[0], n, id=f"{p.id}/{n}", marks=p.marks) for n in names]
    return parameters


CASES, RUNS = found(r"(.+)\.rewards"), found(r"(.+\.passes\d+\.ex\d+)\.loss")


def model_of(path):
    return golden_model(path.parent / load_npz(path)["cfg.json"]["model"])


def padded(path, array, fill):
    """The array with as many rows as the file's largest case, so that one shape is compiled."""
    data = load_npz(path)
    rows = max(len(data[k]) for k in data if k.endswith(".rewards"))
    return np.pad(array, [(0, rows - len(array)), (0, 0)], constant_values=fill)


@pytest.mark.parametrize(("path", "case"), CASES)
def test_rollouts_become_the_same_rows(path, case):
    data = load_npz(path)
    inputs, targets = rl_loss.rollout_rows(
        data[f"{case}.sequences.json"],
        data[f"{case}.masks.json"],
        data["cfg.json"]["assistant_end"],
    )
    np.testing.assert_array_equal(inputs, data[f"{case}.inputs"])
    np.testing.assert_array_equal(targets, data[f"{case}.targets"])


@pytest.mark.parametrize(("path", "case"), CASES)
def test_advantages_are_the_same(path, case):
    data = load_npz(path)
    got = rl_loss.advantages(data[f"{case}.rewards"])
    absolute(got, data[f"{case}.advantages"], "rl")


@pytest.mark.parametrize(("path", "case"), CASES)
def test_the_log_probability_of_every_sampled_token(path, case):
    data, model = load_npz(path), model_of(path)
    targets = data[f"{case}.targets"]
    nll = token_nll(model(padded(path, data[f"{case}.inputs"], 0))[: len(targets)], targets)
    absolute(-nll, data[f"{case}.logp"], "rl")


@functools.partial(jax.jit, static_argnums=0)
def gradients(gpt, params, inputs_ART, targets_ART, weights_ART):
    return step.gradients(gpt, params, inputs_ART, targets_ART, weights_ART)


@pytest.mark.parametrize(("path", "run"), RUNS)
def test_loss_and_gradients_are_the_same(path, run):
    """The file gives one pass as part of a step of `passes` x `examples` of them."""
    data, model = load_npz(path), model_of(path)
    match = RUN.fullmatch(f"{run}.loss")
    case, share = match["case"], 1 / (int(match["passes"]) * int(match["examples"]))
    targets = data[f"{case}.targets"]
    assert (targets >= 0).sum() == data[f"{run}.num_valid"]
    weights = rl_loss.policy_weights(targets[None], data[f"{case}.advantages"][None], len(targets))
    rows = (data[f"{case}.inputs"], 0), (targets, -1), (share * np.asarray(weights[0]), 0)
    inputs, targets, weights = (padded(path, array, fill)[None] for array, fill in rows)
    loss, grads = gradients(model.gpt, model.params, inputs, targets, weights)
    absolute(loss, data[f"{run}.loss"], "rl")
    grads = to_nanochat(grads)
    for name, norm in zip(data["grad_norm_names"], data[f"{run}.grad_norms"], strict=True):
        got = np.linalg.norm(np.asarray(grads[str(name)]))
        absolute(got, norm, "rl", name)
    for key in (k for k in data if k.startswith(f"{run}.grad.")):
        got = grads[key.removeprefix(f"{run}.grad.")]
        absolute(got, data[key], "rl", key)


@pytest.mark.parametrize(("path", "case"), CASES)
def test_a_step_of_several_passes_is_the_mean_of_its_passes(path, case):
    data = load_npz(path)
    targets, advantages = data[f"{case}.targets"], data[f"{case}.advantages"]
    rows = len(targets)
    whole = rl_loss.policy_weights(np.stack([targets, targets]), np.stack([advantages] * 2), rows)
    alone = rl_loss.policy_weights(targets[None], advantages[None], rows)
    np.testing.assert_allclose(whole, np.concatenate([alone, alone]) / 2, rtol=1e-6)
