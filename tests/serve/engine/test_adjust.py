"""Biases, penalties and the min-p floor: against their definitions, in plain numpy."""

import dataclasses
from collections import Counter
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nanochat_jax.serve.engine import Engine
from nanochat_jax.serve.engine.adjust import adjusted, follow, tally
from nanochat_jax.serve.engine.draw_kernel import draw
from nanochat_jax.serve.engine.requests import Generation, Request
from nanochat_jax.serve.engine.rows import AdjustedRows
from nanochat_jax.serve.engine.sampling import sample, sampling_probs, uniform
from nanochat_jax.serve.engine.slots import Slot
from tests.serve.engine.test_sampling import slow_probs
from tests.serve.world import BYTES, random_model

V = 40
MODEL = random_model()
PROMPT = (256, *b"a stitch in time saves nine, nine saves")
END = BYTES.encode_special("<|assistant_end|>")
EACH = [
    {"repetition_penalty": 1.3},
    {"repetition_penalty": 0.7},
    {"presence_penalty": 1.5},
    {"frequency_penalty": 0.8},
    {"frequency_penalty": -0.5, "presence_penalty": -2.0},
    {"min_p": 0.3},
    {"logit_bias": {3: -100.0, 7: 2.5, 11: -1.0}},
    {
        "repetition_penalty": 1.2,
        "presence_penalty": 0.3,
        "frequency_penalty": 0.4,
        "min_p": 0.05,
        "logit_bias": {3: 4.0, 5: -4.0},
    },
]


def defined(logits_V, request, written):
    """What a token is drawn from, after the tokens `written`: a loop over the vocabulary."""
    x_V, counts = np.array(logits_V, np.float64), Counter(written)
    for token, bias in request.logit_bias:
        x_V[token] += bias
    for token in {*request.tokens, *written}:
        by = request.repetition_penalty
        x_V[token] = x_V[token] / by if x_V[token] > 0 else x_V[token] * by
    for token, count in counts.items():
        x_V[token] -= request.presence_penalty + request.frequency_penalty * count
    p_V = np.exp((x_V - x_V.max()) / (request.temperature or 1.0))
    return np.where(p_V < request.min_p, -np.inf, x_V)


def told(requests, written, max_len=24):
    """What a dispatch is told of rows that wrote these tokens so far, and its tally."""
    rows = AdjustedRows(len(requests), max_len, V)
    slots = []
    for row, (request, tokens) in enumerate(zip(requests, written, strict=True)):
        rows.set_request(row, request)
        # In two parts, as the tokens of two dispatches come.
        slot = Slot(row, generation=Generation(request), tokens=[*request.tokens, *tokens[:2]])
        rows.sent([slot], max_len)
        slot.tokens += tokens[2:]
        slots.append(slot)
    asked = jax.tree.map(jnp.asarray, rows.sent(slots, max_len))
    return asked, jax.jit(tally)(asked)


def random_rows(changes, temperature=0.9):
    rng = np.random.default_rng(len(changes))
    requests = [
        Request(tuple(rng.integers(0, V, 5).tolist()), temperature=temperature, **change)
        for change in changes
    ]
    written = [rng.integers(0, V, n % 9).tolist() for n in range(len(requests))]
    logits_BV = 4 * rng.normal(size=(len(requests), V)).astype(np.float32)
    return requests, written, jnp.asarray(logits_BV)


@pytest.mark.parametrize("temperature", [0.0, 0.9])
def test_each_row_is_adjusted_as_defined_and_one_that_asks_for_nothing_keeps_its_bits(temperature):
    changes = [change for each in EACH for change in (each, {})] * 3
    requests, written, x_BV = random_rows(changes, temperature)
    asked, so_far = told(requests, written)
    temperature_B = jnp.full(len(requests), temperature)
    found_BV = np.asarray(jax.jit(adjusted)(x_BV, temperature_B, asked, so_far))
    for row, request in enumerate(requests):
        expected_V = defined(x_BV[row], request, written[row])
        np.testing.assert_allclose(found_BV[row], expected_V, rtol=1e-6, atol=2e-6)
        if not request.adjusts:
            np.testing.assert_array_equal(found_BV[row], x_BV[row])


def test_what_a_dispatch_writes_counts_from_its_next_step_on():
    requests, written, x_BV = random_rows(EACH)
    asked, so_far = told(requests, written)
    running_B = np.arange(len(EACH)) % 3 > 0
    token_B = np.arange(len(EACH)) * 5 % V
    for _ in range(2):
        so_far = jax.jit(follow)(so_far, jnp.asarray(token_B), jnp.asarray(running_B))
    after = [
        [*tokens, *([token] * 2 if runs else [])]
        for tokens, token, runs in zip(written, token_B.tolist(), running_B, strict=True)
    ]
    for mine, fresh in zip(so_far, told(requests, after)[1], strict=True):
        np.testing.assert_array_equal(mine, fresh)


@pytest.mark.slow
def test_top_k_and_top_p_cut_what_the_adjustments_left():
    requests, written, raw_BV = random_rows([each for each in EACH for _ in range(8)])
    raw_BV = raw_BV / 4
    settings = np.float32(0.9), np.int32(12), np.float32(0.8)
    each = [jnp.full(len(requests), value) for value in settings]
    x_BV = adjusted(raw_BV, each[0], *told(requests, written))
    probs_BV = np.asarray(sampling_probs(x_BV, *each))
    for row, request in enumerate(requests):
        expected_V = slow_probs(defined(raw_BV[row], request, written[row]), *settings)
        np.testing.assert_allclose(probs_BV[row] / probs_BV[row].sum(), expected_V, atol=1e-5)
    assert len(set((probs_BV > 0).sum(axis=1).tolist())) > 3  # some cuts are deep, some are not
    # The kernel for GPUs reads logits of minus infinity as XLA's program does.
    uniform_B = uniform(jnp.arange(len(requests), dtype=jnp.uint32), jnp.zeros(len(requests), int))
    kernel_B = partial(draw, chunk=64, interpret=True)(x_BV, *each, uniform_B)
    np.testing.assert_array_equal(kernel_B, sample(x_BV, *each, uniform_B))


@pytest.fixture(scope="module")
def engine():
    return Engine(MODEL, BYTES, slots=8, steps=4, tool=lambda _: None)


def replies(engine, *requests):
    generations = [engine.submit(request) for request in requests]
    while any(not generation.done for generation in generations):
        engine.tick()
    return [[token.id for token in generation.tokens] for generation in generations]


def greedy(request):
    """The whole sequence again for every token, adjusted by the definition."""
    written = []
    while len(written) < request.max_tokens:
        ids = [*request.tokens, *written]
        padded = np.zeros((1, MODEL.cfg.sequence_len), np.int32)
        padded[0, : len(ids)] = ids
        logits_V = np.asarray(MODEL(padded)[0, len(ids) - 1])
        written.append(int(np.argmax(defined(logits_V, request, written))))
    return written


def test_greedy_replies_are_those_of_the_slow_definition_all_at_once(engine):
    changes = [each for each in EACH if "min_p" not in each or len(each) > 1]
    requests = [Request(PROMPT, 8, 0.0, run_on=True, **each) for each in [*changes, {}]]
    found = replies(engine, *requests)
    assert found == [greedy(request) for request in requests]
    assert len({tuple(reply) for reply in found}) > 4


def test_a_reply_is_the_same_alone_and_beside_rows_that_ask_otherwise(engine):
    requests = [
        Request(PROMPT[: 30 + i], 12, 1.0, seed=i, run_on=True, **each)
        for i, each in enumerate([EACH[0], {}, EACH[3], {}, EACH[5], EACH[6], {}, EACH[7]])
    ]
    together = replies(engine, *requests)
    assert together == [replies(engine, request)[0] for request in requests]


def loops(tokens, most=4):
    """Whether some three tokens stand there more than `most` times."""
    triples = Counter(zip(tokens, tokens[1:], tokens[2:], strict=False))
    return max(triples.values()) > most


@pytest.mark.parametrize(
    "change",
    [{"repetition_penalty": 1.5}, {"frequency_penalty": 1.0}, {"presence_penalty": 2.0}],
)
def test_a_model_that_loops_stops_looping(engine, change):
    request = Request(PROMPT[:9], 50, 0.0, run_on=True)
    plain, mended = replies(engine, request, dataclasses.replace(request, **change))
    assert loops(plain) and not loops(mended)


def test_scores_beside_adjusted_tokens_are_the_models_own(engine):
    request = Request(PROMPT, 6, 0.0, run_on=True, alternatives=True, logit_bias={"7": 100})
    generation = engine.submit(request)
    while not generation.done:
        engine.tick()
    ids = [*PROMPT, *(token.id for token in generation.tokens)]
    logprobs_TV = np.asarray(jax.nn.log_softmax(MODEL([ids])[0]))[len(PROMPT) - 1 :]
    for token, logprob_V in zip(generation.tokens, logprobs_TV, strict=False):
        assert token.id == 7 and abs(token.logprob - logprob_V[7]) < 1e-4
        assert token.top[0][0] == np.argmax(logprob_V)


def test_only_a_reply_that_asks_leaves_the_plain_loop(engine, monkeypatch):
    asked, start = [], engine.pool.start
    noted = lambda rows, steps, count, asks=None: (
        asked.append(asks) or start(rows, steps, count, asks)
    )
    monkeypatch.setattr(engine.pool, "start", noted)
    off = {"repetition_penalty": 1, "presence_penalty": 0, "frequency_penalty": 0.0, "min_p": 0}
    replies(engine, Request(PROMPT, 5, 1.0, **off, logit_bias={}))
    assert asked and set(asked) == {None}
    replies(engine, Request(PROMPT, 5, 1.0, min_p=0.1))
    assert asked[-1] is not None


@pytest.mark.slow
def test_a_chat_that_adjusts_has_compiled_its_own_loop_alone():
    engine = Engine(MODEL, BYTES, slots=1, tool=lambda _: None)
    engine.warm_up(scores=False, adjusts=True)
    counted = engine.pool.compilations
    replies(engine, Request(PROMPT, 5, 1.0, presence_penalty=1.0))
    assert engine.pool.compilations == counted
    replies(engine, Request(PROMPT, 5, 1.0))
    assert engine.pool.compilations == counted + 1


@pytest.mark.parametrize(
    "change, said",
    [
        ({"repetition_penalty": 0.0}, "repetition_penalty=0.0; .*0.01 to 10"),
        ({"presence_penalty": 2.1}, "-2 to 2"),
        ({"frequency_penalty": float("nan")}, "-2 to 2"),
        ({"min_p": -0.1}, "0 to 1"),
        ({"logit_bias": {265: 1.0}}, "0..264"),
        ({"logit_bias": {"5": -101}}, "token 5 .*-100 to 100"),
        ({"logit_bias": {i % 265 + 1000 * (i // 265): 1 for i in range(301)}}, "up to 300"),
    ],
)
def test_what_is_out_of_range_is_refused_with_the_range(engine, change, said):
    with pytest.raises(ValueError, match=said):
        engine.submit(Request((1,), **change))
