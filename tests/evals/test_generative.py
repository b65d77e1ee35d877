"""Written answers: the same whoever else is being answered, marked, and counted."""

import itertools
import threading

import jax
import pytest

from nanochat_jax import sharding
from nanochat_jax.evals.generative import EnginePool, SamplingParams, answer, pass_at_k
from nanochat_jax.serve.engine import Engine
from nanochat_jax.serve.engine.requests import RequestRefused
from nanochat_jax.tasks import gsm8k
from tests.serve.world import BYTES, random_model, spoken, talking_model

ROWS = [{"question": "x" * (1 + i % 3) + f"{i}", "answer": f"#### {i}"} for i in range(9)]
TASK = gsm8k.task(ROWS)
LONG = 32  # tokens of prompt and answer
SHORT = SamplingParams(max_new_tokens=6)
WARM = SamplingParams(num_samples=3, max_new_tokens=6, temperature=1.0)


def answered(pool, sampling, **more):
    found = {a.index: a for a in answer(pool, TASK, range(len(TASK)), sampling, **more)}
    assert sorted(found) == list(range(len(TASK)))
    return found


@pytest.fixture(scope="module")
def model():
    return random_model(sequence_len=LONG, n_layer=1)


@pytest.fixture(scope="module")
def pool(model):
    return EnginePool(model, BYTES, max_len=LONG, slots=4)


@pytest.mark.slow
def test_greedy_answers_are_those_of_one_prompt_at_a_time(model, pool):
    found = answered(pool, SHORT)
    alone = Engine(model, BYTES, slots=1)
    for i, got in found.items():
        assert got.prompt == BYTES.render_for_completion(TASK[i]) and not got.cropped
        (want,) = alone.complete([got.prompt], 6)
        assert got.answers[0][:2] == want[:2]


@pytest.mark.slow
def test_sampled_answers_depend_on_their_seed_alone_on_any_mesh(model, pool):
    mesh = sharding.make_mesh("data=1,fsdp=2")
    spread = EnginePool(model, BYTES, max_len=LONG, slots=2, mesh=mesh)
    assert len(spread.engines) == 2
    found = answered(spread, WARM)
    assert found == answered(pool, WARM) == answered(spread, WARM, in_turn=True)
    different = sum(len({tuple(a.tokens) for a in got.answers}) for got in found.values())
    assert different > 2 * len(TASK)
    assert WARM.seeds(1)[0] not in WARM.seeds(0)


def test_new_weights_are_used_from_then_on(model, pool):
    before = answered(pool, SHORT)
    pool.set_params(jax.tree.map(lambda p: p[::-1], model.params))
    other = answered(pool, SHORT)
    pool.set_params(model.params)
    assert other != before == answered(pool, SHORT)


def test_the_tool_is_used_and_the_answer_graded():
    said = talking_model(spoken("so <<3*2>>\n#### 6"))
    pool = EnginePool(said, BYTES, max_len=64, slots=2)
    found = answered(pool, SamplingParams(max_new_tokens=48))
    (i,) = [i for i in found if found[i].right]
    assert TASK[i]["messages"][0]["content"] == "x6"
    one = found[i].answers[0]
    assert one.text == "so <|python_start|>3*2<|python_end|><|output_start|>6<|output_end|>\n#### 6"
    assert one.masks.count(0) == 3 and one.stop_token == BYTES.encode_special("<|assistant_end|>")


def test_another_grader_can_be_given(pool):
    assert all(a.right == 3 for a in answered(pool, WARM, grade=lambda *_: 1.0).values())


def test_prompts_too_long_lose_their_beginning_and_leave_room_for_an_answer(pool):
    long = SamplingParams(max_new_tokens=LONG - 7)
    found = answered(pool, long)
    assert {a.cropped for a in found.values()} == {True, False}
    for i, got in found.items():
        whole = BYTES.render_for_completion(TASK[i])
        assert got.prompt == whole[-7:] and got.cropped == (len(whole) > 7)
        (one,) = got.answers
        assert one.stop_token is not None or len(one.tokens) == LONG - 7


def test_an_error_of_the_engine_reaches_the_reader(pool):
    with pytest.raises(RequestRefused, match="temperature -1"):
        answered(pool, SamplingParams(temperature=-1))


def test_a_reader_who_leaves_takes_the_threads_along(pool):
    before = threading.active_count()
    reading = answer(pool, TASK, itertools.cycle(range(len(TASK))), SHORT)
    next(reading)
    reading.close()
    assert threading.active_count() == before
    assert all(e.active == e.waiting == 0 for e in pool.engines)


def test_no_problems_have_no_answers(pool):
    assert list(answer(pool, TASK, [], SHORT)) == []


def test_pass_at_k_is_the_mean_over_all_draws():
    for right, k in itertools.product(range(6), range(1, 6)):
        draws = list(itertools.combinations([True] * right + [False] * (5 - right), k))
        assert pass_at_k(right, 5, k) == pytest.approx(sum(map(any, draws)) / len(draws))
    with pytest.raises(ValueError, match="k=6"):
        pass_at_k(1, 5, 6)
