"""What the API does not take: the right status, OpenAI's error body, and a message that helps."""

import httpx
import openai
import pytest

from tests.serve.conftest import RunningServer, new_service
from tests.serve.server.asking import ASK, assert_idle, post, refused


@pytest.mark.slow
def test_errors_reach_the_client_as_its_own_exceptions(client):
    with pytest.raises(openai.NotFoundError):
        client.chat.completions.create(**{**ASK, "model": "gpt-9"})
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(**ASK, temperature=9)
    assert caught.value.param == "temperature"


@pytest.mark.parametrize(
    "changes, param",
    [
        ({"messages": []}, "messages"),
        ({"messages": "hi"}, "messages"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages"),
        ({"messages": [{"role": "user", "content": ""}]}, "messages"),
        ({"messages": [{"role": "user"}]}, "messages"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "messages"),
        ({"messages": [{"role": "user", "content": "x" * 8001}]}, "messages"),
        ({"messages": [{"role": "user", "content": "x" * 8000}] * 5}, "messages"),
        ({"messages": [{"role": "user", "content": "x"}] * 501}, "messages"),
        ({"temperature": 2.1}, "temperature"),
        ({"temperature": "hot"}, "temperature"),
        ({"messages": [{"role": "system", "content": ""}]}, "messages"),
        ({"top_p": -0.1}, "top_p"),
        ({"top_k": 201}, "top_k"),
        ({"top_k": -2}, "top_k"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": -2}, "max_tokens"),
        ({"max_completion_tokens": 0}, "max_completion_tokens"),
        ({"n": 0}, "n"),
        ({"stop": ["a"] * 5}, "stop"),
        ({"stop": ""}, "stop"),
        ({"top_logprobs": 21, "logprobs": True}, "top_logprobs"),
        ({"repetition_penalty": 0}, "repetition_penalty"),
        ({"presence_penalty": -2.1}, "presence_penalty"),
        ({"frequency_penalty": 2.1}, "frequency_penalty"),
        ({"min_p": 1.1}, "min_p"),
        ({"logit_bias": {"265": 1}}, "logit_bias"),
        ({"logit_bias": [1, 2]}, "logit_bias"),
    ],
)
def test_what_is_out_of_range_is_400_with_openais_error_body(http, changes, param):
    message = refused(post(http, {**ASK, **changes}), 400, param)
    assert param in message


def test_refused_penalties_and_biases_say_what_is_taken(http):
    assert "equal to 2" in refused(
        post(http, {**ASK, "presence_penalty": 3}), 400, "presence_penalty"
    )
    many = {str(token): 1 for token in range(301)}
    for biases in ({"5": 101}, {"five": 1}, {"-1": 1}, {"5": "1"}, many):
        for path, body in (("/v1/chat/completions", ASK), ("/v1/completions", {"prompt": "a"})):
            said = refused(post(http, {**body, "logit_bias": biases}, path), 400, "logit_bias")
            assert "up to 300 token ids, each with a number from -100 to 100" in said


def test_fields_that_do_not_go_together_are_refused_by_their_names(http):
    assert "needs logprobs" in refused(post(http, {**ASK, "top_logprobs": 2}), 400)
    assert "either prompt or messages" in refused(post(http, {}, "/tokenize"), 400)


def test_bodies_that_are_no_json_object_are_400(http):
    for body in ("{bad", "[]", "3", "", '{"messages": 1e999}', '{"a":' * 2000, "[" * 100_000):
        answer = http.post(
            "/v1/chat/completions", content=body, headers={"content-type": "application/json"}
        )
        assert answer.status_code == 400 and "error" in answer.json(), body[:40]
    nan = '{"messages":[{"role":"user","content":"x"}],"temperature":NaN}'
    answer = http.post("/v1/chat/completions", content=nan, headers={"content-type": "text/json"})
    assert answer.status_code == 400


def test_what_may_have_several_forms_is_refused_in_one_sentence(http):
    for prompt in ([], [1, "a"], [-1], [True], [[]], {}, None):
        message = refused(post(http, {"prompt": prompt}, "/v1/completions"), 400, "prompt")
        assert message.startswith("prompt: give text, token ids, or a list of 1 to 256")
    image = {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}
    said = refused(post(http, {**ASK, "messages": [image]}), 400, "messages")
    assert said.startswith("messages.0.content: give text, or a list of parts")


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/chat/completions", "/v1/completions"])
def test_half_a_surrogate_is_no_server_error(http, path):
    message = r'{"messages": [{"role": "user", "content": "\ud800"}], "prompt": "\ud800"'
    for model in ("nanochat", r"\udfff"):
        body = f'{message}, "model": "{model}"}}'
        answer = http.post(path, content=body, headers={"content-type": "application/json"})
        assert answer.status_code in (200, 400, 404), answer.text


def test_one_request_leaves_places_for_others(http):
    body = {"prompt": ["a"] * 5, "n": 7}
    assert "takes 34" in refused(post(http, body, "/v1/completions"), 400, "prompt")


def test_completions_take_more_stops_than_chats(http):
    body = {"prompt": "a", "stop": ["z"] * 16}
    assert post(http, body, "/v1/completions").status_code == 200
    refused(post(http, {**body, "stop": ["z"] * 17}, "/v1/completions"), 400, "stop")


def test_other_refusals_have_the_same_body(http):
    refused(post(http, {**ASK, "model": "gpt-9"}), 404, "model", "model_not_found")
    refused(http.get("/v1/models/gpt-9"), 404, "model", "model_not_found")
    refused(http.get("/v1/nothing"), 404)
    refused(http.get("/v1/chat/completions"), 405)
    refused(http.post("/v1/chat/completions", content=b"x" * (2**20 + 1)), 413, None, "too_large")
    long = {**ASK, "messages": [{"role": "user", "content": "x" * 500}]}
    refused(post(http, long), 400, "messages", "context_length_exceeded")
    many = {"model": "nanochat-test", "prompt": [1] * 200}
    refused(post(http, many, "/v1/completions"), 400, "prompt", "context_length_exceeded")
    unknown = {"model": "nanochat-test", "prompt": [1, 9999]}
    assert "0..264" in refused(post(http, unknown, "/v1/completions"), 400, "prompt")


def test_a_full_queue_is_429_and_a_client_that_leaves_frees_its_slot(talker):
    long = {**ASK, "stream": True}
    with httpx.Client(base_url=talker.url, timeout=60) as http:
        streams = []
        for _ in range(4):
            ask = http.build_request("POST", "/v1/chat/completions", json=long)
            stream = http.send(ask, stream=True)
            streams.append(stream)
            assert stream.status_code == 200
        answer = post(http, ASK)
        assert "try again" in refused(answer, 429, None, "queue_full")
        assert answer.headers["retry-after"] == "1"
        for stream in streams:
            stream.close()
        assert_idle(http)
        assert post(http, ASK).status_code == 200


@pytest.mark.parametrize(
    "changes, said",
    [
        ({"messages": []}, "at least one"),
        ({"messages": [{"role": "system", "content": "x"}]}, "role"),
        ({"messages": [{"role": "user", "content": ""}]}, "text of 1 to 8000"),
        ({"temperature": 2.5}, "temperature"),
        ({"top_k": 201}, "top_k"),
        ({"max_tokens": 4097}, "max_tokens"),
    ],
)
def test_the_originals_limits_are_kept_at_its_endpoint(http, changes, said):
    answer = post(http, {"messages": ASK["messages"], **changes}, "/chat/completions")
    assert answer.status_code == 400 and said in answer.json()["detail"]


def test_every_refusal_of_the_originals_endpoint_has_its_detail_and_no_other_has(http):
    long = {"messages": [{"role": "user", "content": "word " * 1500}]}
    for body in (long, {"messages": []}, {"messages": "x" * 2**21}):
        theirs, ours = post(http, body, "/chat/completions"), post(http, body)
        assert theirs.status_code in (400, 413) and ours.status_code == theirs.status_code
        assert theirs.json()["detail"] == theirs.json()["error"]["message"]
        assert "detail" not in ours.json()


@pytest.mark.slow
def test_keys_rate_and_origins_are_asked_for_only_when_wanted():
    flags = {"api_key": ("secret",), "cors_origin": ("https://a.example",), "rate_limit": 3}
    with RunningServer(new_service(slots=1, **flags)) as running:
        with httpx.Client(base_url=running.url, timeout=60) as http:
            assert http.get("/health").status_code in (200, 503)
            assert http.get("/").status_code == 200
            refused(http.get("/v1/models"), 401, None, "invalid_api_key")
            key = {"Authorization": "Bearer secret", "Origin": "https://a.example"}
            document = http.get("/openapi.json", headers=key).json()["paths"]
            assert document["/v1/models"]["get"]["security"] == [{"bearer": []}]
            assert "401" in document["/v1/models"]["get"]["responses"]
            assert "security" not in document["/health"]["get"]
            answer = http.get("/v1/models", headers=key)
            assert answer.headers["access-control-allow-origin"] == "https://a.example"
            for _ in range(3):
                assert http.post("/tokenize", json={"prompt": "x"}, headers=key).status_code == 200
            answer = http.post("/tokenize", json={"prompt": "x"}, headers=key)
            refused(answer, 429, None, "rate_limit_exceeded")
        running.wait_ready()


def test_without_keys_another_origin_gets_no_leave(http):
    answer = http.get("/v1/models", headers={"Origin": "https://evil.example"})
    assert "access-control-allow-origin" not in answer.headers
