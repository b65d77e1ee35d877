"""The API as its clients see it: real sockets, real clients."""

import asyncio
import gc
import json
import threading
import time

import httpx
import openai
import pytest
from prometheus_client.parser import text_string_to_metric_families

from nanochat_jax.serve.engine import Engine
from nanochat_jax.serve.engine.requests import Generation
from tests.serve.conftest import RunningServer, new_service
from tests.serve.server.asking import ASK, SAID, assert_idle, post, refused
from tests.serve.world import BYTES, spoken, talking_model


def test_a_stream_says_the_same_as_the_whole_answer(client):
    whole = client.chat.completions.create(**ASK, max_tokens=20)
    chunks = list(
        client.chat.completions.create(
            **ASK, max_tokens=20, stream=True, stream_options={"include_usage": True}
        )
    )
    text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    assert text == whole.choices[0].message.content
    assert chunks[0].choices[0].delta.role == "assistant"
    assert [c.choices[0].finish_reason for c in chunks if c.choices][-1] == "length"
    assert chunks[-1].choices == [] and chunks[-1].usage.completion_tokens == 20
    assert whole.usage.total_tokens == whole.usage.prompt_tokens + 20
    assert len({c.id for c in chunks}) == 1
    for timings in (whole.timings, chunks[-1].timings):
        read, wrote = timings["prompt_ms"] / 1e3, timings["predicted_ms"] / 1e3
        assert timings["predicted_n"] == 20 and 0 < read and 0 < wrote < 60
        assert timings["predicted_per_second"] == pytest.approx(20 / wrote)
        assert timings["prompt_n"] + timings["cache_n"] == whole.usage.prompt_tokens


def test_a_reply_that_was_cut_goes_on_where_it_ended(http):
    greedy = {"temperature": 0, "max_tokens": 8, "logprobs": True}
    cut = [*ASK["messages"], {"role": "assistant", "content": "so"}]
    more = post(http, {**ASK, **greedy, "messages": cut, "continue_final_message": True}).json()
    opened = http.post("/tokenize", json={"messages": ASK["messages"]}).json()["tokens"]
    plain = {"prompt": [*opened, *b"so"], "temperature": 0, "max_tokens": 8, "logprobs": 1}
    said = post(http, plain, "/v1/completions").json()
    tokens = [scored["token"] for scored in more["choices"][0]["logprobs"]["content"]]
    assert tokens == said["choices"][0]["logprobs"]["tokens"][: len(tokens)]
    assert more["usage"]["prompt_tokens"] == len(opened) + 2
    refused(post(http, {**ASK, "continue_final_message": True}), 400)


def test_a_reply_that_was_cut_in_a_call_calls_on(talker):
    call = [{"type": "python", "text": "70+"}]
    body = {"messages": [*ASK["messages"], {"role": "assistant", "content": call}]}
    with httpx.Client(base_url=talker.url, timeout=60) as http:
        more = post(http, {**body, "continue_final_message": True, "max_tokens": 4}).json()
    assert more["choices"][0]["message"]["parts"][0]["type"] == "python"


def test_n_choices_differ_and_a_seed_repeats_them(client):
    ask = lambda: client.chat.completions.create(**ASK, n=3, max_tokens=12, temperature=1.2)
    texts = [choice.message.content for choice in ask().choices]
    assert len(set(texts)) == 3
    assert texts == [choice.message.content for choice in ask().choices]


def test_tool_calls_are_parts_beside_the_text(talker):
    with httpx.Client(base_url=talker.url, timeout=60) as http:
        message = post(http, ASK).json()["choices"][0]["message"]
        body = {**ASK, "stream": True, "logprobs": True, "top_logprobs": 2}
        chunks = [
            json.loads(line[6:])
            for line in post(http, body).text.splitlines()
            if line.startswith("data: {")
        ]
    assert message["content"] == "Grüße 🙂:  makes 138."
    assert [part["text"] for part in message["parts"]] == [
        "Grüße 🙂: ", "72+66", "138", " makes 138."
    ]  # fmt: skip
    deltas = [choice["delta"] for chunk in chunks for choice in chunk["choices"]]
    assert "".join(delta.get("content", "") for delta in deltas) == message["content"]
    assert {d["part"]["type"] for d in deltas if "part" in d} == {"python", "python_output"}
    scored = [
        token
        for chunk in chunks
        for choice in chunk["choices"]
        for token in (choice["logprobs"] or {"content": []})["content"]
    ]
    forced = [token["token"] for token in scored if token["forced"]]
    assert forced == ["<|output_start|>", "1", "3", "8", "<|output_end|>"]


def test_the_conversation_goes_on_with_its_tool_calls(talker):
    with httpx.Client(base_url=talker.url, timeout=60) as http:
        reply = post(http, ASK).json()["choices"][0]["message"]
        history = [*ASK["messages"], {"role": "assistant", "content": reply["parts"]}]
        messages = [*history, {"role": "user", "content": "more"}]
        answer = post(http, {**ASK, "messages": messages}).json()
        tokens = http.post("/tokenize", json={"messages": messages}).json()["tokens"]
    assert "<|python_start|>72+66<|python_end|><|output_start|>138" in BYTES.decode(tokens)
    used = answer["usage"]
    assert used["prompt_tokens_details"]["cached_tokens"] > used["prompt_tokens"] / 2


@pytest.mark.parametrize("stop", [" mak", ["zzz", "🙂"], "Grüße 🙂:  makes 138."])
def test_stop_strings_end_the_reply_and_are_not_shown(talker, stop):
    stops = [stop] if isinstance(stop, str) else stop
    first = min("Grüße 🙂:  makes 138.".find(s) for s in stops if s in "Grüße 🙂:  makes 138.")
    with httpx.Client(base_url=talker.url, timeout=60) as http:
        choice = post(http, {**ASK, "stop": stop}).json()["choices"][0]
    assert choice["message"]["content"] == "Grüße 🙂:  makes 138."[:first]
    assert choice["finish_reason"] == "stop"


def test_completions_echo_and_score_prompts_of_every_kind(client):
    settings = {"model": "nanochat-test", "echo": True, "logprobs": 1, "max_tokens": 0}
    text = client.completions.create(prompt="abc", **settings).choices[0]
    ids = client.completions.create(prompt=[256, *b"abc"], **settings).choices[0]
    many = client.completions.create(prompt=["abc", "de"], **settings).choices
    assert text.text == "abc" and text.logprobs.tokens == ["a", "b", "c"]
    assert ids.logprobs.tokens[0] == "<|bos|>" and ids.logprobs.token_logprobs[0] is None
    assert text.logprobs.token_logprobs == ids.logprobs.token_logprobs[1:]
    assert [choice.text for choice in many] == ["abc", "de"]
    assert all(
        lp in top.values()
        for lp, top in zip(text.logprobs.token_logprobs, text.logprobs.top_logprobs, strict=True)
    )


def test_completions_stream_the_same_text_and_scores(client):
    settings = {"model": "nanochat-test", "prompt": "abc", "max_tokens": 9, "seed": 4, "echo": True}
    whole = client.completions.create(**settings, logprobs=2).choices[0]
    chunks = [c for c in client.completions.create(**settings, logprobs=2, stream=True)]
    choices = [c.choices[0] for c in chunks if c.choices]
    assert "".join(choice.text for choice in choices) == whole.text
    for name in ("tokens", "token_logprobs", "text_offset"):
        parts = [getattr(choice.logprobs, name) for choice in choices]
        assert sum(parts, []) == getattr(whole.logprobs, name)


def test_offsets_tell_where_each_token_stands_in_the_text(client):
    settings = {"model": "nanochat-test", "echo": True, "logprobs": 0, "max_tokens": 0}
    choice = client.completions.create(prompt=[256, *"aé🙂b".encode()], **settings).choices[0]
    assert choice.text == "aé🙂b"
    assert choice.logprobs.text_offset == [0, 0, 1, 1, 2, 2, 2, 2, 3]


def test_text_that_begins_with_the_bos_by_name_gets_no_other(client):
    settings = {"model": "nanochat-test", "echo": True, "logprobs": 1, "max_tokens": 0}
    named = client.completions.create(prompt="<|bos|>ab<|bos|>", **settings).choices[0].logprobs
    ids = client.completions.create(prompt=[256, *b"ab<|bos|>"], **settings).choices[0].logprobs
    assert named == ids and len(named.tokens) == 10


def test_the_token_that_ends_a_completion_is_scored_and_not_shown(talker):
    begin = BYTES.encode_special("<|assistant_start|>")
    body = {"prompt": [begin], "max_tokens": 100, "logprobs": 1, "temperature": 0}
    with httpx.Client(base_url=talker.url, timeout=60) as http:
        choice = post(http, body, "/v1/completions").json()["choices"][0]
    assert choice["finish_reason"] == "stop"
    assert choice["logprobs"]["tokens"][-1] == "<|assistant_end|>"
    assert choice["logprobs"]["token_logprobs"][-1] > -0.01
    assert choice["text"].endswith("makes 138.")


def test_chat_scores_every_token_with_its_alternatives(client):
    ask = {**ASK, "max_tokens": 6, "logprobs": True, "top_logprobs": 3}
    scored = client.chat.completions.create(**ask).choices[0].logprobs.content
    assert len(scored) == 6
    for token in scored:
        assert len(token.top_logprobs) == 3
        best = [other.logprob for other in token.top_logprobs]
        assert best == sorted(best, reverse=True) and token.logprob <= best[0] + 1e-6


def test_the_async_client_gets_many_replies_at_once(server):
    async def ask_all():
        async with openai.AsyncOpenAI(base_url=server.url + "/v1", api_key="none") as client:
            asks = [
                client.chat.completions.create(**{**ASK, "seed": i}, max_tokens=8)
                for i in range(12)
            ]
            return await asyncio.gather(*asks)

    replies = asyncio.run(ask_all())
    assert all(reply.choices[0].finish_reason for reply in replies)


def test_the_async_client_streams(server, client):
    async def stream():
        async with openai.AsyncOpenAI(base_url=server.url + "/v1", api_key="none") as client:
            chunks = await client.chat.completions.create(**ASK, max_tokens=12, stream=True)
            return [c.choices[0].delta.content or "" async for c in chunks]

    whole = client.chat.completions.create(**ASK, max_completion_tokens=12)
    assert "".join(asyncio.run(stream())) == whole.choices[0].message.content


def test_models_tokens_health_and_stats_are_answered_in_the_forms_their_clients_know(http, server):
    models = http.get("/v1/models").json()["data"]
    assert [m["id"] for m in models] == ["nanochat-test"]
    assert models[0]["limits"] == {
        "message_characters": 8000, "chat_characters": 32000, "messages": 500
    }  # fmt: skip
    assert http.get("/v1/models/nanochat-test").json()["object"] == "model"
    tokens = http.post("/tokenize", json={"prompt": "hé"}).json()["tokens"]
    assert http.post("/detokenize", json={"tokens": tokens}).json() == {"prompt": "hé"}
    assert http.get("/tokenizer_info").json()["eos_token"] == "<|assistant_end|>"
    assert http.get("/health").json() == {
        "status": "ok", "ready": True, "num_gpus": 1, "available_workers": 4
    }  # fmt: skip
    assert http.get("/stats").json()["total_workers"] == 4


def test_tokenize_knows_special_tokens_and_the_bos(http):
    tokens = lambda **body: http.post("/tokenize", json=body).json()["tokens"]
    assert tokens(prompt="<|bos|>") == [256]
    assert tokens(prompt="<|bos|>x") == [*b"<|bos|>x"]
    assert tokens(prompt="x", add_special_tokens=True) == [256, *b"x"]
    assert len(tokens(prompt="x" * 100_000)) == 100_000


def test_metrics_are_prometheus_text(http):
    http.get("/v1/models")
    answer = http.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    families = {f.name: f for f in text_string_to_metric_families(answer.text)}
    assert families["nanochat_total_workers"].samples[0].value == 4
    asked = [s.labels for s in families["nanochat_requests"].samples]
    assert {"path": "/v1/models", "status": "200"} in asked
    tokens = families["nanochat_completion_tokens"].samples[0].value
    assert tokens == http.get("/stats").json()["completion_tokens"]
    first = families["nanochat_time_to_first_token_seconds"]
    assert first.type == "histogram" and first.samples[0].labels["le"] == "0.05"


def test_the_document_says_what_is_answered_and_never_422(http):
    document = http.get("/openapi.json").json()
    operations = [op for path in document["paths"].values() for op in path.values()]
    assert not [op for op in operations if "422" in op["responses"]]
    ask = document["paths"]["/v1/chat/completions"]["post"]["responses"]
    assert set(ask["200"]["content"]) == {"application/json", "text/event-stream"}
    assert ask["400"]["content"]["application/json"]["schema"]["$ref"].endswith("ErrorBody")


def test_unknown_fields_and_content_parts_are_taken(http):
    parts = [{"type": "text", "text": "h"}, {"type": "text", "text": "i"}]
    body = {**ASK, "messages": [{"role": "user", "content": parts}], "logit_bias": {}, "user": "me"}
    other = post(http, {**body, "temperature": 0}).json()
    same = post(http, {**ASK, "temperature": 0}).json()
    assert other["choices"][0]["message"] == same["choices"][0]["message"]


def test_a_conversation_that_is_too_long_says_what_it_dropped(http):
    turns = [{"role": r, "content": "x" * 20} for _ in range(5) for r in ("user", "assistant")]
    answer = post(http, {**ASK, "messages": [*turns, *ASK["messages"]]}).json()
    assert answer["nanochat"]["dropped_messages"] >= 2
    assert answer["usage"]["prompt_tokens"] < 128


def test_a_client_that_does_not_stream_can_leave_too(talker):
    with httpx.Client(base_url=talker.url) as http:
        with pytest.raises(httpx.ReadTimeout):
            http.post("/v1/chat/completions", json={**ASK, "n": 2}, timeout=0.05)
        assert_idle(http)


def test_nothing_is_left_of_a_reply_that_has_ended(http):
    def jobs():
        return sum(isinstance(thing, Generation) for thing in gc.get_objects())

    gc.collect()
    gc.disable()  # what only a collection would find is kept for very long by a busy server
    try:
        before = jobs()
        for stream in (False, True, False):
            post(http, {**ASK, "n": 2, "stream": stream})
        until = time.monotonic() + 5
        while jobs() > before and time.monotonic() < until:
            time.sleep(0.01)
        assert jobs() <= before
    finally:
        gc.enable()


def test_the_originals_endpoint_streams_tokens_and_ends_with_done(talker):
    with httpx.Client(base_url=talker.url, timeout=60) as http:
        body = {"messages": ASK["messages"], "temperature": 0.5, "top_k": 10, "max_tokens": 100}
        lines = post(http, body, "/chat/completions").text.strip().split("\n\n")
    events = [json.loads(line.removeprefix("data: ")) for line in lines]
    assert events[-1] == {"done": True}
    assert all(set(event) == {"token", "gpu"} for event in events[:-1])
    call = "<|python_start|>72+66<|python_end|><|output_start|>138<|output_end|>"
    assert "".join(e["token"] for e in events[:-1]) == f"Grüße 🙂: {call} makes 138."


def test_a_reply_that_takes_longer_than_the_server_waits_is_told_so():
    class Slow(Engine):
        def tick(self):
            time.sleep(0.2)
            return super().tick()

    model = talking_model(spoken(SAID), sequence_len=256)
    service = new_service(model, slots=1, kind=Slow)
    with RunningServer(service) as running, httpx.Client(base_url=running.url, timeout=60) as http:
        running.wait_ready()
        with http.stream("POST", "/v1/chat/completions", json={**ASK, "stream": True}) as answer:
            lines = answer.iter_lines()
            next(lines)
            service.scheduler.close(0.1)
            rest = [line for line in lines if line]
        refused(post(http, ASK), 503, None, "shutting_down")
    assert json.loads(rest[-2][6:])["error"]["type"] == "server_error"
    assert rest[-1] == "data: [DONE]"


def test_health_is_503_while_loading_and_a_stream_is_drained_at_the_end():
    service = new_service(talking_model(spoken(SAID), sequence_len=256), slots=1)
    with RunningServer(service) as running, httpx.Client(base_url=running.url, timeout=60) as http:
        answer = http.get("/health")
        assert answer.status_code == 503 and answer.json()["status"] == "loading"
        assert 0 <= answer.json()["progress"] <= 1
        refused(post(http, ASK), 503, None, "loading")
        running.wait_ready()
        got = []
        reader = threading.Thread(target=lambda: got.append(post(http, {**ASK, "stream": True})))
        reader.start()
        while not service.scheduler.engine.active:
            time.sleep(0.001)
        running.should_exit = True
        reader.join(10)
    assert got[0].text.endswith("data: [DONE]\n\n")
