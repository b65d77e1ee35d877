"""Engines are kept from one model to the next, without memory between; not after an error."""

import jax
import pytest

from nanochat_jax.evals.kept import Kept
from nanochat_jax.evals.samples import Continuations
from nanochat_jax.models.gpt import Model
from nanochat_jax.serve.engine import Engine
from nanochat_jax.serve.engine.requests import Request
from tests.serve.world import BYTES, random_model

MODEL = random_model()
OTHER = Model(MODEL.gpt, jax.tree.map(lambda p: p[::-1], MODEL.params))


@pytest.fixture
def kept():
    return Kept(lambda model: Engine(model, BYTES, slots=1))


def released(engine):
    return engine.pool.params is None and engine.pool.cache is None


def test_the_same_engine_answers_for_the_next_model(kept):
    with kept(MODEL) as first:
        assert not released(first)
    assert released(first)
    with kept(OTHER) as second:
        assert second is first and not released(second)


def test_an_error_gives_the_memory_back_and_the_next_model_gets_an_engine_of_its_own(kept):
    with pytest.raises(OSError, match="full"), kept(MODEL) as first:
        first.submit(Request((256, 1), 4, 0.0))
        raise OSError("the disk is full")
    assert released(first)
    with kept(MODEL) as second:
        assert second is not first and not second.waiting


def test_continuations_are_those_of_the_model_at_hand():
    prompts = ["Mira", "The valley of"]
    continued = Continuations(BYTES, prompts)
    both = [continued(model) for model in (MODEL, OTHER)]
    assert both[0] != both[1] == Continuations(BYTES, prompts)(OTHER)
    assert all(text.startswith(p) for found in both for p, text in zip(prompts, found, strict=True))
