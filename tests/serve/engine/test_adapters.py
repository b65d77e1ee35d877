"""One engine answers with adapters and without, row by row: as each model would alone."""

import jax
import numpy as np
import pytest

from nanochat_jax.models import lora
from nanochat_jax.models.cache import init_cache
from nanochat_jax.models.gpt import Model
from nanochat_jax.serve.engine import Engine
from nanochat_jax.serve.engine.decode import Specials, decode_chunk
from nanochat_jax.serve.engine.requests import Request
from nanochat_jax.serve.engine.rows import idle_rows
from nanochat_jax.serve.engine.sampling import sample
from nanochat_jax.serve.engine.weights import nbytes, prepare
from tests.models.test_lora import adapters_of
from tests.serve.world import BYTES, random_model

BASE = random_model()
ADAPTERS = adapters_of(BASE, jax.random.key(5))
BESIDE = Model(BASE.gpt, lora.attached(BASE.params, ADAPTERS))
MERGED = Model(BASE.gpt, lora.merged(BASE.params, ADAPTERS))
PROMPT = tuple(range(40, 60))


@pytest.fixture(scope="module")
def engine():
    return Engine(BESIDE, BYTES, slots=4, steps=4, tool=lambda _: None)


def greedy(model, tokens, count):
    ids = list(tokens)
    for _ in range(count):
        ids.append(int(model([ids + [0] * (40 - len(ids))])[0, len(ids) - 1].argmax()))
    return ids[len(tokens) :]


def run(engine, *requests):
    generations = [engine.submit(request) for request in requests]
    engine._run(generations)
    return generations


def ids(generation):
    return [token.id for token in generation.tokens]


def test_each_row_is_answered_by_the_model_that_it_asks_for(engine):
    adapted, plain = (Request(PROMPT, 8, 0.0, run_on=True, adapted=on) for on in (True, False))
    mixed = run(engine, adapted, plain, adapted)
    wanted = [greedy(model, PROMPT, 8) for model in (MERGED, BASE, MERGED)]
    assert [ids(generation) for generation in mixed] == wanted
    assert wanted[0] != wanted[1]
    for request, together in zip((adapted, plain), mixed, strict=False):
        engine.forget()
        (alone,) = run(engine, request)
        assert ids(alone) == ids(together)
    # What the model read with its adapters is of no use without them.
    engine.forget()
    assert [run(engine, r)[0].cached_tokens > 0 for r in (plain, adapted) * 2] == [
        False, False, True, True,
    ]  # fmt: skip


@pytest.mark.parametrize("int8", [False, True])
def test_prepared_adapters_compute_the_same_beside_matrices_of_any_kind(int8):
    ours, theirs = (prepare(model, int8=int8) for model in (BESIDE, BASE))
    assert nbytes(ours.params) - nbytes(theirs.params) < nbytes(ADAPTERS) * 2
    tokens = np.arange(12)[None]
    scores, plain = (np.asarray(Model(m.gpt, m.params)(tokens)) for m in (ours, theirs))
    change = np.asarray(BESIDE(tokens)) - np.asarray(BASE(tokens))
    np.testing.assert_allclose(scores - plain, change, atol=0.3 if int8 else 2e-5)


def test_an_engine_without_adapters_compiles_what_it_always_did(monkeypatch):
    """Its program is that of a decoder which knows of none."""
    rows, cache = idle_rows(2, 4), init_cache(BASE.cfg, 2, 32, BASE.gpt.dtype)

    def text():
        run = lambda *args: decode_chunk(BASE.gpt.apply, sample, Specials(-1, -1, ()), 0, *args)
        return jax.jit(run).lower(BASE.params, cache, rows, np.int32(4)).as_text()

    known = text()
    monkeypatch.setattr(lora, "of_rows", lambda params, _: params)
    monkeypatch.setattr(lora, "A", "no such name")
    assert text() == known and len(jax.tree.leaves(rows)) == 13
