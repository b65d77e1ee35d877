"""A question's scores are those it has alone: batches, shared beginnings and meshes change none."""

import functools
import logging

import jax
import numpy as np
import pytest

from nanochat_jax import sharding
from nanochat_jax.evals.core import prompts, scoring, shapes
from nanochat_jax.models.gpt import Model
from nanochat_jax.train.compiles import JAX_LOGGER
from tests.evals.core_bundles import ROWS, TOKENIZER, model, task

RECIPES = ("classic", "current")
SHOTS = {"multiple_choice": 3, "schema": 0, "language_modeling": 4}
# Tokens of a prompt. Options that are cut no longer begin alike, so those stay whole.
LIMIT = {"multiple_choice": 128, "schema": 128, "language_modeling": 64}


@functools.cache
def asked():
    """Questions of all kinds, some of them cut to fit."""
    found = {}
    for kind, row in ROWS.items():
        items = [row(i) for i in range(9)]
        ready = prompts.examples(task(kind, SHOTS[kind]), items, range(9), TOKENIZER, LIMIT[kind])
        found |= {(kind, i): example for i, example in enumerate(ready)}
    return found


@functools.cache
def model_of(recipe):
    return model(recipe, sequence_len=24)


def scores(recipe, params=None, **kw):
    of = model_of(recipe)
    of = Model(of.gpt, params) if params is not None else of
    found = {}
    for some in scoring.score(of, [asked()], **kw):
        found |= some
    return found


@functools.cache
def together(recipe):
    return scores(recipe, batch_tokens=1024, least_shared=16)


def assert_same(found, want):
    assert found.keys() == want.keys()
    for key in want:
        for got, expected in zip(found[key][1], want[key][1], strict=True):
            np.testing.assert_allclose(got.nll, expected.nll, atol=2e-5, err_msg=str(key))
            assert got.best.tolist() == expected.best.tolist()


class Heard(logging.Filter):
    """(function, thread) of everything that JAX compiles."""

    def filter(self, record):
        self.all.append((str(record.args[0]), record.threadName))
        return False


@pytest.fixture
def heard():
    logger, found = logging.getLogger(JAX_LOGGER), Heard()
    found.all, level = [], logger.level
    logger.addFilter(found)
    logger.setLevel(logging.DEBUG)
    yield found.all
    logger.removeFilter(found)
    logger.setLevel(level)


def test_few_shapes_change_no_score_and_are_compiled_side_by_side_alone(monkeypatch, heard):
    monkeypatch.setattr(shapes, "LEAST_SHARED", 16)
    want = together("current")
    groups = [(g, 1.0) for k, e in asked().items() for g in shapes.groups(k, e)]
    planned = shapes.plan(groups, most=3)
    scoring._run.clear_cache()
    heard.clear()
    assert_same(scores("current", batch_tokens=1024, planned=planned), want)
    runs = [thread for function, thread in heard if function == "jit(_run)"]
    # What was compiled ahead is what the batches ran: the main thread compiles none.
    assert len(runs) == len(planned) == 3 and "MainThread" not in runs


@pytest.mark.slow
@pytest.mark.parametrize("recipe", RECIPES)
def test_scores_are_those_of_the_whole_model_on_one_row(recipe):
    for key, (example, found) in together(recipe).items():
        for row, got in zip(example.rows, found, strict=True):
            ids = np.zeros(
                max(LIMIT.values()), np.int32
            )  # one shape; what lies behind a row changes nothing
            ids[: len(row.ids)] = row.ids
            logits = np.asarray(model_of(recipe)(ids))[0, row.start - 1 : row.end - 1]
            nll = jax.nn.logsumexp(logits, axis=-1)
            nll -= logits[np.arange(len(logits)), row.ids[row.start : row.end]]
            np.testing.assert_allclose(got.nll, nll, atol=2e-5, err_msg=str(key))
            assert got.best.tolist() == logits.argmax(-1).tolist()


def test_the_questions_are_of_all_sorts():
    groups = [j for k, e in asked().items() for j in scoring.groups_of(k, e, 16)]
    assert any(group.shared for group in groups) and any(not group.shared for group in groups)
    assert {example.cropped for example in asked().values()} == {False, True}
    assert min(w for w in model_of("current").cfg.masks if w) < 48


@pytest.mark.slow
@pytest.mark.parametrize("recipe", RECIPES)
def test_reading_rows_whole_gives_the_same(recipe):
    assert_same(scores(recipe, batch_tokens=1024, least_shared=10**9), together(recipe))


@pytest.mark.slow
@pytest.mark.parametrize("recipe", RECIPES)
def test_one_row_a_forward_pass_gives_the_same(recipe):
    assert_same(scores(recipe, batch_tokens=1, least_shared=16), together(recipe))


@pytest.mark.slow
@pytest.mark.parametrize("axes", ["4", "data=2,fsdp=2"])
def test_scores_are_the_same_on_any_mesh(axes):
    mesh = sharding.make_mesh(axes)
    params = model_of("current").params
    params = jax.device_put(params, sharding.shardings(mesh, params))
    found = scores("current", params, mesh=mesh, batch_tokens=512, least_shared=16)
    assert_same(found, together("current"))


def test_no_questions_have_no_scores():
    assert list(scoring.score(model_of("classic"), [])) == []
    assert list(scoring.score(model_of("classic"), [{}, {}])) == []
