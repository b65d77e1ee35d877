import dataclasses
import gc

import jax
import numpy as np
import pytest

from nanochat_jax.serve.engine import Engine
from nanochat_jax.serve.engine.requests import Request
from tests.serve.world import BYTES, compilations, random_model, scripted_model

MODEL = random_model()
# A window of 32 in a context of 64: in the first layer a query does not see everything.
WINDOWS = random_model("current", short_window="half")
LONG = [256, *((7 * n) % 251 for n in range(60))]
END = BYTES.encode_special("<|assistant_end|>")
PROMPTS = [[256, *range(n, 2 * n)] for n in range(1, 33)]


@pytest.fixture(scope="module")
def engine():
    return Engine(MODEL, BYTES, slots=4, steps=4)


def greedy(model, prompt, count):
    """The slow way: the whole sequence again for every token."""
    ids = list(prompt)
    for _ in range(count):
        padded = np.zeros((1, model.cfg.sequence_len), np.int32)
        padded[0, : len(ids)] = ids
        ids.append(int(np.argmax(model(padded)[0, len(ids) - 1])))
        if ids[-1] in (END, BYTES.get_bos_token_id()):
            return ids[len(prompt) : -1]
    return ids[len(prompt) :]


def run(engine, *requests):
    generations = [engine.submit(request) for request in requests]
    while any(not generation.done for generation in generations):
        engine.tick()
    return generations


@pytest.mark.slow
@pytest.mark.parametrize("model", [MODEL, WINDOWS], ids=["classic", "current"])
def test_cached_decoding_equals_the_uncached_model(model):
    engine = Engine(model, BYTES, slots=2, tool=lambda _: None)
    prompts = [PROMPTS[0], PROMPTS[4], PROMPTS[20], LONG[:52]]
    replies = engine.complete(prompts, 12)
    assert [reply.tokens for reply in replies] == [greedy(model, p, 12) for p in prompts]


@pytest.mark.slow
def test_a_prompt_read_in_chunks_is_the_prompt_read_at_once():
    engine = Engine(WINDOWS, BYTES, slots=2, steps=4, tool=lambda _: None)
    engine.pool.chunks = (4, 16)
    for count in (4, 5, 16, 17, 18, 21, 32, 33, 34, 50):  # around where chunks begin
        (reply,) = engine.complete([LONG[:count]], 6)
        assert reply.tokens == greedy(WINDOWS, LONG[:count], 6)
        engine.forget()


@pytest.mark.slow
@pytest.mark.parametrize("model", [MODEL, WINDOWS], ids=["classic", "current"])
def test_a_reply_is_the_same_alone_and_among_32_others(model):
    engine = Engine(model, BYTES, slots=33, steps=4)
    crowd = [
        Request(tuple(p), 20, [1.0, 0.7, 1.3][i % 3], [40, None][i % 2], [1.0, 0.9][i % 2], seed=i)
        for i, p in enumerate([*PROMPTS, LONG[:40]])
    ]
    together = run(engine, *crowd)
    for place in (0, 7, 31, 32):
        for keep in (True, False):  # going on from what is cached, and from nothing
            if not keep:
                engine.forget()
            (alone,) = run(engine, crowd[place])
            assert [c.id for c in alone.tokens] == [c.id for c in together[place].tokens]


@pytest.mark.slow
def test_a_cached_prefix_changes_nothing_but_the_work(engine):
    first = Request(tuple(PROMPTS[15]), 10, 1.0, seed=3)
    (fresh,) = run(engine, first)
    longer = dataclasses.replace(first, tokens=(*first.tokens, *(c.id for c in fresh.tokens), 5, 6))
    (reused,) = run(engine, longer)
    assert reused.cached_tokens >= len(first.tokens)
    engine.forget()
    (again,) = run(engine, longer)
    assert again.cached_tokens == 0
    assert [c.id for c in again.tokens] == [c.id for c in reused.tokens]


def test_a_prefix_is_reused_with_smear_too():
    engine = Engine(WINDOWS, BYTES, slots=2, steps=4, tool=lambda _: None)
    request = Request(tuple(LONG[:40]), 8, 0.0)
    run(engine, request)
    longer = dataclasses.replace(request, tokens=(*request.tokens, 9, 8, 7))
    (reused,) = run(engine, longer)
    assert reused.cached_tokens == len(request.tokens)
    assert [c.id for c in reused.tokens] == greedy(WINDOWS, longer.tokens, 8)


def test_logprobs_of_prompt_and_reply_are_the_models(engine):
    (generation,) = run(
        engine, Request(tuple(PROMPTS[5]), 6, 1.0, alternatives=True, score_prompt=True)
    )
    ids = [*generation.request.tokens, *(c.id for c in generation.tokens)]
    logprobs_TV = np.asarray(jax.nn.log_softmax(MODEL([ids])[0]))
    scored = [*generation.prompt_scores, *generation.tokens]
    assert [c.id for c in scored] == ids[1:]
    for place, token in enumerate(scored):
        assert abs(token.logprob - logprobs_TV[place, token.id]) < 1e-4
        best = np.argsort(-logprobs_TV[place])[:20]
        np.testing.assert_allclose([lp for _, lp in token.top], logprobs_TV[place][best], atol=1e-4)


def test_generate_yields_columns_and_generate_batch_the_same_tokens(engine):
    settings = {"num_samples": 3, "max_tokens": 9, "temperature": 1.0, "seed": 11}
    columns = list(engine.generate(PROMPTS[6], **settings))
    sequences, masks = engine.generate_batch(PROMPTS[6], **settings)
    for row, (sequence, mask) in enumerate(zip(sequences, masks, strict=True)):
        reply = sequence[len(PROMPTS[6]) :]
        assert [column[row] for column, _ in columns][: len(reply)] == reply
        assert len(mask) == len(sequence) and sum(mask) <= len(reply)
    assert len({tuple(sequence) for sequence in sequences}) == 3
    assert len({sequence[len(PROMPTS[6])] for sequence in sequences}) > 1


def test_more_samples_than_slots_are_all_generated(engine):
    columns = list(engine.generate(PROMPTS[2], num_samples=6, max_tokens=5))
    sequences, _ = engine.generate_batch(PROMPTS[2], num_samples=6, max_tokens=5)
    assert all(len(column) == 6 for column, _ in columns)
    for row, sequence in enumerate(sequences):
        reply = sequence[len(PROMPTS[2]) :]
        assert [column[row] for column, _ in columns][: len(reply)] == reply


def test_the_context_ends_a_reply_with_length(engine):
    prompt = [256] + [7] * 50
    (generation,) = run(engine, Request(tuple(prompt), None, 0.0, run_on=True))
    assert generation.finish_reason == "length"
    assert len(prompt) + len(generation.tokens) == MODEL.cfg.sequence_len
    (full,) = run(engine, Request((1,) * MODEL.cfg.sequence_len, 5, 0.0))
    assert full.finish_reason == "length" and not full.tokens


def test_a_cancelled_reply_frees_its_slot_at_once(engine):
    generations = [engine.submit(Request(tuple(p), 30, 1.0, run_on=True)) for p in PROMPTS[:5]]
    engine.tick()
    assert engine.active == 4 and engine.waiting == 1
    generations[0].cancel()
    engine.tick()
    assert generations[0].finish_reason == "cancelled" and engine.waiting == 0
    for generation in generations:
        generation.cancel()
    engine.tick()
    assert engine.active == 0 and all(generation.done for generation in generations)


def test_leaving_a_generator_early_frees_its_slots(engine):
    columns = engine.generate(PROMPTS[3], num_samples=2)
    next(columns)
    columns.close()
    assert engine.active == 0


def test_a_long_prompt_does_not_stop_the_other_rows():
    engine = Engine(random_model(sequence_len=2048), BYTES, slots=2, steps=2)
    engine.pool.lengths = (2048,)  # one cache length: fewer compilations
    short = engine.submit(Request((256, *range(9)), 200, 0.0, run_on=True))
    engine.tick()
    long = engine.submit(Request((256,) + (5,) * 2024, 4, 0.0, run_on=True))
    before = len(short.tokens)
    while not long.tokens:
        engine.tick()
    assert len(short.tokens) - before >= 4
    assert short.finish_reason is None


@pytest.mark.slow
def test_the_cache_grows_with_its_rows_and_shrinks_when_nobody_needs_it(monkeypatch):
    model = random_model(sequence_len=1024)
    engine = Engine(model, BYTES, slots=2, tool=lambda _: None)
    assert engine.pool.length == 256
    prompt = [256, *(i % 250 for i in range(300))]
    (long,) = engine.complete([prompt], 8)
    assert engine.pool.length == 512
    assert long.tokens == greedy(model, prompt, 8)
    short = [[256, 1, 2]]
    beside = engine.complete(short, 8)
    assert engine.pool.length == 512  # the long chat may go on: its row is kept
    (generation,) = run(engine, Request((*prompt, *long.tokens, 9), 4, 0.0))
    assert generation.cached_tokens >= len(prompt)
    monkeypatch.setattr("nanochat_jax.serve.engine.pool.PATIENCE", 2)
    assert engine.complete(short, 8) == beside
    assert engine.pool.length == 256
    fresh = Engine(model, BYTES, slots=2, tool=lambda _: None)
    assert fresh.complete(short, 8) == beside


def test_after_warm_up_nothing_is_compiled():
    engine = Engine(random_model(sequence_len=64), BYTES, slots=3, steps=4)
    engine.warm_up()
    counted = engine.pool.compilations
    compiled = compilations()
    requests = [
        Request((256,) + (3,) * n, 5, t, k, p, alternatives=a, score_prompt=a)
        for n, t, k, p, a in [
            (1, 0.0, None, 1.0, False),
            (20, 1.0, 5, 0.9, True),
            (30, 0.5, 200, 1.0, False),
            (58, 1.0, None, 0.5, True),
        ]
    ]
    run(engine, *requests, Request((256, 3), 5, min_p=0.1, logit_bias={65: 2}))
    list(engine.generate([256, 9], num_samples=2, max_tokens=4))
    assert engine.pool.compilations == counted
    assert not compiled


def test_an_engine_gives_its_memory_back_and_goes_on_with_new_weights_without_compiling():
    held = {id(x) for x in jax.live_arrays()}
    engine = Engine(MODEL, BYTES, slots=2, max_len=64)
    ask = lambda: [reply.tokens for reply in engine.complete([[1, 2, 3], [4, 5]], 8)]
    before, cache = ask(), id(engine.pool.cache)
    engine.release()
    assert engine.pool.params is None and engine.pool.cache is None
    gc.collect()
    assert sum(x.nbytes for x in jax.live_arrays() if id(x) not in held) < 1024
    other = jax.tree.map(lambda p: p[::-1], MODEL.params)
    compiled = compilations()
    engine.set_params(other)
    assert id(engine.pool.cache) != cache and ask() != before
    engine.release()
    engine.set_params(MODEL.params)
    assert ask() == before and not compiled


def test_a_tool_runs_without_stopping_the_other_row():
    special = BYTES.encode_special
    call = [special("<|python_start|>"), *b"6*7", special("<|python_end|>")]
    model = scripted_model([[*call, 0, 0, 0, 0, 65], [66] * 30], 2, 265, END)
    engine = Engine(model, BYTES, slots=2, steps=4)
    tool, talk = engine.complete([[256, 1], [256, 2]], 20)
    output = [special("<|output_start|>"), *b"42", special("<|output_end|>")]
    assert tool.tokens == [*call, *output, 65] and tool.finish_reason == "stop"
    assert tool.masks == [1] * 5 + [0] * 4 + [1]
    assert talk.tokens == [66] * 20 and talk.finish_reason == "length"


@pytest.mark.slow
def test_a_prompt_may_end_within_a_tool_call():
    special = BYTES.encode_special
    start, end = special("<|assistant_start|>"), special("<|python_end|>")
    prompt = [256, start, special("<|python_start|>"), *b"6*"]
    for before, output in (([], b"42"), ([start], None)):
        tokens = [*prompt, *before]
        model = scripted_model([[*b"7", end, 0, 0, 0, 0, 65]], len(tokens), 265, END)
        (reply,) = Engine(model, BYTES, slots=1, steps=4).complete([tokens], 20)
        forced = [special("<|output_start|>"), *(output or b""), special("<|output_end|>")]
        assert reply.tokens == [*b"7", end, *(forced if output else [0, 0, 0, 0]), 65]


@pytest.mark.parametrize(
    "request_, message",
    [
        (Request(()), "0 tokens"),
        (Request((1,) * 65), "65 tokens.*context is 64"),
        (Request((265,)), "0..264"),
        (Request((1,), temperature=-1.0), "negative"),
        (Request((1,), top_k=-2), "top_k"),
        (Request((1,), top_p=-0.1), "top_p"),
        (Request((1,), max_tokens=-2), "max_tokens"),
    ],
)
def test_what_no_model_could_answer_is_refused(engine, request_, message):
    with pytest.raises(ValueError, match=message):
        engine.submit(request_)
