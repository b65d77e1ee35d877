"""A run continued from the original's own files: weights and optimizer state after half of it."""

import jax
import numpy as np
import pytest

from nanochat_jax.interop import nanochat
from tests.golden.conftest import beside, files, load_npz
from tests.golden.test_optim_traj import (
    finals_close,
    losses_close,
    scaled_optim,
    schedules_are_the_originals,
    settings,
    train,
    weights,
)


@pytest.mark.slow
@pytest.mark.parametrize("path", files("current/optim_traj_resume*.npz"))
def test_a_resumed_run_goes_on_as_the_originals(path):
    data = load_npz(path)
    cfg, config = settings(path, data)
    first = int(data["rec.steps"][0])
    theirs = nanochat.read(nanochat.find(beside(path.parent, "checkpoint_resume*"), step=first))

    def resume(state):
        assert jax.tree.map(np.shape, state.opt_state) == jax.tree.map(np.shape, theirs.optimizer)
        return state.replace(step=np.int32(first), opt_state=theirs.optimizer)

    optim = scaled_optim(cfg, config, data)
    params = jax.tree.map(np.asarray, theirs.params)
    got, params = train(cfg, optim, data, (params, resume), first)
    losses_close(got["train/loss"], data["rec.loss"], "current", "f32", 0.0)
    finals_close(params, weights(data, "final."), "current", "f32")
    schedules_are_the_originals(got, data)
