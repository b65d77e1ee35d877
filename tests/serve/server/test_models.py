"""A checkpoint of adapters is served with its base: two models, by name, on one engine."""

import httpx
import jax
import pytest

from tests.serve.conftest import RunningServer, new_service
from tests.serve.engine.test_adapters import BASE, BESIDE, MERGED, PROMPT

COMPLETION = {"prompt": list(PROMPT), "max_tokens": 2, "temperature": 0, "logprobs": 1}
CHAT = {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 2}


@pytest.fixture(scope="module")
def both():
    with RunningServer(new_service(BESIDE, slots=2, base_id="nanochat-mid-d2")) as running:
        with httpx.Client(base_url=running.wait_ready().url, timeout=60) as client:
            yield client


def test_both_models_are_listed_the_adapters_first_with_their_base(both):
    listed = both.get("/v1/models").json()["data"]
    found = [(card["id"], card["parent"]) for card in listed]
    assert found == [("nanochat-test", "nanochat-mid-d2"), ("nanochat-mid-d2", None)]
    assert both.get("/v1/models/nanochat-mid-d2").json() == listed[1]


@pytest.mark.parametrize(
    ("asked", "name", "model"),
    [
        ({}, "nanochat-test", MERGED),
        ({"model": "nanochat"}, "nanochat-test", MERGED),
        ({"model": "nanochat-mid-d2"}, "nanochat-mid-d2", BASE),
    ],
)
def test_a_request_is_answered_by_the_model_that_it_names(both, asked, name, model):
    answer = both.post("/v1/completions", json=COMPLETION | asked).json()
    assert answer["model"] == name
    scored = answer["choices"][0]["logprobs"]["token_logprobs"][0]
    likeliest = jax.nn.log_softmax(model([PROMPT])[0, -1]).max()
    assert scored == pytest.approx(float(likeliest), abs=1e-4)
    assert both.post("/v1/chat/completions", json=CHAT | asked).json()["model"] == name


def test_another_model_is_refused_with_the_names_there_are(both):
    answer = both.post("/v1/completions", json=COMPLETION | {"model": "gpt-5"})
    assert answer.status_code == 404
    said = "this server has `nanochat-test` and `nanochat-mid-d2`"
    assert said in answer.json()["error"]["message"]
