"""The engine's thread under a storm: everybody is served or told, and the compiler stays asleep."""

import random
import threading
import time

import pytest

from nanochat_jax.serve.engine import Engine, pool
from nanochat_jax.serve.engine.requests import Request
from nanochat_jax.serve.server.scheduler import QueueFull, Scheduler
from tests.serve.world import BYTES, compilations, random_model

SETTINGS = [(0.0, None, 1.0), (1.0, None, 1.0), (0.8, 20, 1.0), (1.2, None, 0.7), (0.5, 1, 0.5)]


@pytest.fixture(scope="module")
def scheduler():
    """Two slots, two cache lengths, two chunk sizes; every Python block gets the answer 7."""
    patch = pytest.MonkeyPatch()
    patch.setattr(pool, "LARGEST_CHUNK", 32)
    model = random_model("current", sequence_len=300, short_window="half")
    engine = Engine(model, BYTES, slots=2, steps=4, tool=lambda _: 7)
    running = Scheduler(engine, queue_limit=1000)
    running.start()
    assert running.ready.wait(120)
    yield running
    running.close()
    patch.undo()


def ask(scheduler, request):
    """The job, and an event that is set when it has ended."""
    ended = threading.Event()
    return scheduler.submit(request, lambda job, _: job.done and ended.set()), ended


def storm(count=60):
    draw, special = random.Random(1), BYTES.encode_special
    for i in range(count):
        length = draw.choice((1, 2, 15, 16, 17, 33, 60, 250, 299))
        prompt = [256, *(draw.randrange(256) for _ in range(length))]
        if i % 5 == 0:
            prompt[-1] = special("<|python_start|>")  # what follows is soon a tool call
        temperature, top_k, top_p = draw.choice(SETTINGS)
        yield Request(
            tuple(prompt[:300]),
            draw.choice((0, 1, 5, 40, None)),
            temperature,
            top_k,
            top_p,
            seed=i,
            alternatives=i % 3 == 0,
            score_prompt=i % 7 == 0,
            run_on=i % 11 == 0,
            repetition_penalty=1.0 + (i % 5 == 1) / 4,
        )


@pytest.mark.slow
def test_a_storm_of_mixed_requests_is_served_and_compiles_nothing(scheduler):
    counted, compiled = scheduler.engine.pool.compilations, compilations()
    asked = [ask(scheduler, request) for request in storm()]
    for job, _ in asked[::6]:
        scheduler.cancel(job)
    assert all(ended.wait(60) for _, ended in asked)
    assert scheduler.engine.active == scheduler.waiting == 0
    reasons = {job.finish_reason for job, _ in asked}
    assert reasons <= {"stop", "length", "cancelled"} and "length" in reasons
    assert any(not choice.sampled for job, _ in asked for choice in job.tokens)  # tools ran
    assert scheduler.engine.pool.compilations == counted
    assert not compiled


def test_what_was_not_warmed_up_is_counted(scheduler, monkeypatch):
    monkeypatch.setattr(scheduler.engine.pool, "chunks", (7,))
    counted = scheduler.engine.pool.compilations
    job, ended = ask(scheduler, Request((256, *range(7)), 1, 0.0))
    assert ended.wait(60) and job.finish_reason in ("stop", "length")
    assert scheduler.engine.pool.compilations == counted + 1


def test_a_reply_in_the_storm_is_the_reply_alone(scheduler):
    requests = list(storm(24))
    asked = [ask(scheduler, request) for request in requests]
    assert all(ended.wait(60) for _, ended in asked)
    for place in (1, 8, 10, 23):
        alone, ended = ask(scheduler, requests[place])
        assert ended.wait(60)
        together = asked[place][0]
        assert [c.id for c in alone.tokens] == [c.id for c in together.tokens]
        assert alone.finish_reason == together.finish_reason


def test_a_full_queue_refuses_and_a_cancelled_job_makes_room(scheduler, monkeypatch):
    monkeypatch.setattr(scheduler, "queue_limit", 1)
    endless = Request((256, 1), 280, 1.0, run_on=True)
    asked = [ask(scheduler, endless) for _ in range(3)]  # two slots and one that waits
    with pytest.raises(QueueFull, match="waiting already"):
        ask(scheduler, endless)
    for job, _ in asked:
        scheduler.cancel(job)
    assert all(ended.wait(10) for _, ended in asked)
    last, ended = ask(scheduler, Request((256, 1), 3, 0.0, run_on=True))
    assert ended.wait(10) and last.finish_reason == "length"


def test_who_asks_first_is_served_first(scheduler):
    order = []
    asks = [Request((256, *range(5)), 20, 0.0, seed=i, run_on=True) for i in range(6)]
    ends = []
    for i, request in enumerate(asks):
        ended = threading.Event()

        def told(job, new, i=i, ended=ended):
            if new and i not in order:
                order.append(i)
            if job.done:
                ended.set()

        scheduler.submit(request, told)
        ends.append(ended)
    assert all(ended.wait(30) for ended in ends)
    # Two begin in one dispatch, for there are two slots; nobody comes before them.
    assert all(order.index(i) < order.index(i + 2) for i in range(4))


@pytest.mark.slow
def test_when_the_device_fails_every_job_ends_and_none_is_taken():
    engine = Engine(random_model(sequence_len=32), BYTES, slots=1, steps=2)
    broken = Scheduler(engine)
    broken.start()
    assert broken.ready.wait(120)

    def fail(*_):
        raise RuntimeError("the device is gone")

    engine.pool.start = fail
    asked = [ask(broken, Request((256, 1), 5)) for _ in range(3)]
    assert all(ended.wait(10) for _, ended in asked)
    assert {job.finish_reason for job, _ in asked} == {"failed"}
    deadline = time.monotonic() + 10
    while broken.alive and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not broken.alive and not broken.ready.is_set() and "gone" in str(broken.error)
    with pytest.raises(QueueFull):
        broken.submit(Request((256, 1), 5))


@pytest.mark.parametrize("stopped", [False, True])
def test_who_is_stopped_while_it_compiles_is_not_told_ready_and_did_not_fail(stopped):
    class Compiling(Engine):
        def warm_up(self):
            assert begun.wait(10)

    begun, told = threading.Event(), []
    late = Scheduler(Compiling(random_model(), BYTES, slots=1), queue_limit=1)
    late.when_ready = lambda: told.append("ready")
    late.start()
    if stopped:
        late.closing = True
    begun.set()
    assert late.ready.wait(10)
    late.close()
    assert late.error is None and told == ["ready"] * (not stopped)
