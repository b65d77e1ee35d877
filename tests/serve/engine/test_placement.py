"""Serving from several devices: four virtual ones reply as one does."""

import dataclasses

import jax
import numpy as np
import pytest

from nanochat_jax.serve.engine import Engine
from nanochat_jax.serve.engine.placement import Placement
from nanochat_jax.serve.engine.requests import Request
from nanochat_jax.serve.engine.rows import idle_rows
from nanochat_jax.sharding import make_mesh
from tests.serve.world import BYTES, compilations, random_model

MODEL = random_model("current", sequence_len=64)
PROMPTS = [[256, *range(n, 2 * n)] for n in range(1, 25)]


@pytest.fixture(scope="module")
def sharded_engine():
    engine = Engine(MODEL, BYTES, slots=8, steps=4, mesh=make_mesh("4"))
    engine.warm_up()
    return engine


def run(engine, *requests):
    generations = [engine.submit(request) for request in requests]
    while any(not generation.done for generation in generations):
        engine.tick()
    return [[token.id for token in generation.tokens] for generation in generations]


def scores(engine, *requests):
    generations = [engine.submit(request) for request in requests]
    while any(not generation.done for generation in generations):
        engine.tick()
    return [generation.prompt_scores for generation in generations]


def requests():
    kinds = [(0.0, None, 1.0), (1.0, 40, 1.0), (0.7, None, 0.9)]
    return [
        Request(
            tuple(prompt),
            12,
            *kinds[i % 3],
            seed=i,
            alternatives=i % 4 == 0,
            frequency_penalty=0.5 * (i % 5 == 1),
        )  # fmt: skip
        for i, prompt in enumerate(PROMPTS)
    ]


@pytest.mark.slow
def test_four_devices_reply_as_one_does_and_compile_nothing_more(sharded_engine):
    counted = sharded_engine.pool.compilations
    compiled = compilations()
    several = run(sharded_engine, *requests())
    assert sharded_engine.pool.compilations == counted and not compiled
    assert several == run(Engine(MODEL, BYTES, slots=8, steps=4), *requests())
    assert len(sharded_engine.devices) == 4


@pytest.mark.slow
def test_prompts_are_scored_to_the_bit_as_one_device_scores_them(sharded_engine):
    to_score = [Request(tuple(p), 0, score_prompt=True, alternatives=True) for p in PROMPTS[3:]]
    found = scores(sharded_engine, *to_score)
    assert [len(one) for one in found] == [len(p) - 1 for p in PROMPTS[3:]]
    assert found == scores(Engine(MODEL, BYTES, slots=8, steps=4), *to_score)


@pytest.mark.slow
def test_the_rows_lie_on_their_devices_and_the_weights_on_all(sharded_engine):
    keys_BSKH, _ = sharded_engine.pool.cache.layers[0]
    assert {shard.data.shape[0] for shard in keys_BSKH.addressable_shards} == {2}
    weights = jax.tree.leaves(sharded_engine.pool.params)
    assert all(len(w.devices()) == 4 and w.is_fully_replicated for w in weights)


@pytest.mark.slow
def test_every_device_reads_a_prompt_of_its_own(sharded_engine, monkeypatch):
    sharded_engine.forget()
    counts, prefill = [], sharded_engine.pool.prefill
    monkeypatch.setattr(
        sharded_engine.pool, "prefill", lambda *args: counts.append(prefill(*args)) or counts[-1]
    )
    run(sharded_engine, *requests()[8:16])  # of 9 to 16 tokens and the first, one chunk each
    assert len(counts) == 2 and all(min(read) > 0 for read, _ in counts)


@pytest.mark.slow
def test_a_chat_goes_on_from_whatever_device_its_row_lies_on(sharded_engine):
    sharded_engine.forget()
    first = requests()[-8:]  # one a slot
    replies = run(sharded_engine, *first)
    longer = [
        dataclasses.replace(request, tokens=(*request.tokens, *reply, 7, 8, 9))
        for request, reply in zip(first, replies, strict=True)
    ]
    generations = [sharded_engine.submit(request) for request in reversed(longer)]
    while any(not generation.done for generation in generations):
        sharded_engine.tick()
    assert all(
        generation.cached_tokens >= len(generation.request.tokens) - 15
        for generation in generations
    )
    sharded_engine.forget()
    again = run(sharded_engine, *longer)
    assert again == [
        [token.id for token in generation.tokens] for generation in reversed(generations)
    ]


@pytest.mark.slow
def test_generate_on_four_devices_yields_what_one_yields(sharded_engine):
    settings = {"num_samples": 3, "max_tokens": 6, "seed": 5}
    one = Engine(MODEL, BYTES, slots=4, steps=4)
    assert list(sharded_engine.generate(PROMPTS[4], **settings)) == list(
        one.generate(PROMPTS[4], **settings)
    )


def test_slots_that_the_devices_do_not_divide_are_refused_with_the_next_number():
    with pytest.raises(ValueError, match="6 slots .* 4 devices; take 8"):
        Engine(MODEL, BYTES, slots=6, mesh=make_mesh("4"))


def test_rows_filled_first_are_spread_evenly_and_come_back_in_order():
    placement, rows = Placement(make_mesh("4"), 12), idle_rows(12, 2)
    rows.seed_B[:] = np.arange(12)
    arranged = placement.arrange(rows, 8).seed_B
    assert arranged.tolist() == [0, 4, 1, 5, 2, 6, 3, 7]
    back = placement.restore(np.stack([arranged, arranged]))
    assert back.tolist() == [list(range(8))] * 2
