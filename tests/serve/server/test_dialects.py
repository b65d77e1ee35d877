"""What clients of other servers send: it means here what it means there."""

import dataclasses

import httpx
import openai
import pytest

from nanochat_jax.config.serve import ChatCLI, ChatWeb
from nanochat_jax.serve.engine.requests import Request
from nanochat_jax.serve.server.guards import bearer_keys
from tests.serve.conftest import RunningServer, new_service
from tests.serve.server.asking import ASK, post, refused
from tests.serve.world import spoken, talking_model

HI = {"role": "user", "content": "hi"}
LINE_ENDS = "a\x85b\u2028c\u2029d\x0be\x1cf\rg"  # to Python's splitlines


def text_of(http, **changes):
    choice = post(http, {**ASK, "max_tokens": 24, **changes}).json()["choices"][0]
    return choice["message"]["content"]


@pytest.mark.parametrize("every", [0, -1])
def test_top_k_0_and_minus_1_mean_all_tokens(http, every):
    hot = {"temperature": 2, "seed": 5}
    assert text_of(http, top_k=every, **hot) != text_of(http, top_k=1, **hot)
    body = {"prompt": "ab", "temperature": 2, "seed": 5, "max_tokens": 24}
    whole = post(http, body, "/v1/completions").json()["choices"][0]  # its default: all
    same = post(http, {**body, "top_k": every}, "/v1/completions").json()["choices"][0]
    assert same == whole
    original = {"messages": [HI], "top_k": every, "max_tokens": 4}
    assert post(http, original, "/chat/completions").text.endswith('data: {"done":true}\n\n')


def test_top_p_0_leaves_the_likeliest_token_alone(http):
    likeliest = text_of(http, temperature=0)
    for seed in (1, 2, 3):
        assert text_of(http, top_p=0, temperature=2, top_k=0, seed=seed) == likeliest


def test_penalties_and_biases_are_openais_and_vllms_in_chats_and_completions(http):
    cold = {"temperature": 0, "max_tokens": 24}
    chat = lambda **more: post(http, {**ASK, **cold, **more}).json()["choices"][0]
    text = lambda **more: post(http, {"prompt": "ab", **cold, **more}, "/v1/completions").json()[
        "choices"
    ][0]
    off = {"presence_penalty": 0, "frequency_penalty": 0.0, "repetition_penalty": 1, "min_p": 0}
    for ask in (chat, text):
        plain = ask()
        assert ask(**off, logit_bias={}) == ask(logit_bias=None, min_p=None) == plain
        for name in ("presence_penalty", "frequency_penalty", "repetition_penalty"):
            assert ask(**{name: 2}) != plain, name
        # The likeliest alone is at least as likely as itself.
        assert ask(min_p=1, temperature=2, top_k=0, seed=4) == plain
    assert text(logit_bias={"120": 100})["text"] == "x" * 24


def test_a_servers_flags_are_what_requests_do_not_say(http, server, monkeypatch):
    settled = text_of(http, temperature=0, repetition_penalty=1.5)
    flags = dataclasses.replace(server.service.cfg, repetition_penalty=1.5, min_p=1.0)
    monkeypatch.setattr(server.service, "cfg", flags)
    assert text_of(http, temperature=2, top_k=0) == settled
    assert text_of(http, temperature=0, repetition_penalty=1) != settled


@pytest.mark.parametrize("empty", ["", [], None, [{"type": "text", "text": ""}]])
@pytest.mark.parametrize("role", ["system", "developer"])
def test_an_empty_system_message_is_no_message(http, role, empty):
    used = lambda *messages: post(http, {**ASK, "messages": messages}).json()["usage"]
    prompt = lambda *messages: post(http, {"messages": messages}, "/tokenize").json()["tokens"]
    nothing = {"role": role, "content": empty}
    brief = {"role": "system", "content": "Be brief."}
    assert used(nothing, HI)["prompt_tokens"] == used(HI)["prompt_tokens"]
    assert prompt(nothing, brief, nothing, HI, nothing) == prompt(brief, HI)
    # And still: something has to be said.
    refused(post(http, {**ASK, "messages": [nothing]}), 400, "messages")


@pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens"])
@pytest.mark.parametrize("wanted", [-1, 128, 4096, 8192, 10**12])
def test_a_reply_ends_where_the_context_ends_whatever_was_asked_for(http, name, wanted):
    for stream in (False, True):
        assert post(http, {**ASK, name: wanted, "stream": stream}).status_code == 200
    whole = post(http, {**ASK, "seed": 3, "temperature": 1, name: wanted}).json()
    assert whole == whole | {"usage": whole["usage"] | {"total_tokens": 128}}
    assert whole["choices"][0]["finish_reason"] == "length"


def test_plain_completions_take_as_many_tokens_as_fit_too(http):
    answer = post(http, {"prompt": "abc", "max_tokens": -1, "seed": 1}, "/v1/completions").json()
    assert answer["usage"]["total_tokens"] == 128
    assert post(http, {"prompt": "abc", "max_tokens": 0}, "/v1/completions").status_code == 200


def test_a_request_settles_its_spellings_once():
    plain = Request((1,), None, 0.0, None, 1.0)
    assert Request((1,), -1, 0.7, -1, 0.0) == Request((1,), None, 0.7, 0, 0) == plain
    assert Request((1,), 0, 0.7, 1, 0.5) != Request((1,), None, 0.7, 1, 0.5)


def test_flags_take_what_requests_take():
    for program in (ChatCLI, ChatWeb):
        for top_k in (-1, 0):
            assert program(top_k=top_k, top_p=0.0, max_tokens=-1).top_k == top_k
        for wrong in (
            {"top_k": -2},
            {"top_p": -0.1},
            {"max_tokens": 0},
            {"max_tokens": -2},
            {"min_p": 2.0},
        ):
            with pytest.raises(ValueError, match="give"):
                program(**wrong)


def test_head_is_answered_wherever_get_is_with_its_headers_and_no_body(http):
    paths = [path for path, known in http.get("/openapi.json").json()["paths"].items()
             if "get" in known and "{" not in path]  # fmt: skip
    assert {"/health", "/v1/models", "/metrics", "/stats"} <= {*paths}
    for path in [*paths, "/", "/logo.svg", "/web/app.js", "/openapi.json", "/v1/models/nanochat"]:
        head, get = http.head(path), http.get(path)
        assert (head.status_code, head.content) == (get.status_code, b""), path
        assert head.headers["content-type"] == get.headers["content-type"]
    assert http.head("/nothing").status_code == 404
    assert http.head("/tokenize").status_code == http.get("/tokenize").status_code == 405


@pytest.mark.parametrize(
    "header, let_in",
    [
        ("Bearer secret", True),
        ("bearer secret", True),
        ("BEARER   secret ", True),
        ("Bearer\tsecret", True),
        ("Bearer secre", False),
        ("Bearer secret x", False),
        ("Bearersecret", False),
        ("Basic secret", False),
        ("secret", False),
        ("Bearer", False),
        ("", False),
    ],
)
def test_a_key_is_read_in_any_case_and_spacing_of_its_scheme(header, let_in):
    scope = {"type": "http", "path": "/v1/models", "headers": [(b"authorization", header.encode())]}
    refusal = bearer_keys(("other", "secret"))(scope)
    assert (refusal is None) == let_in
    assert let_in or refusal.headers["WWW-Authenticate"] == "Bearer"


def test_no_line_end_of_any_reader_cuts_an_event():
    model = talking_model(spoken(LINE_ENDS), sequence_len=512)
    with RunningServer(new_service(model, slots=1)) as running:
        running.wait_ready()
        client = openai.OpenAI(base_url=running.url + "/v1", api_key="none", max_retries=0)
        chunks = client.chat.completions.create(**ASK, stream=True)
        assert "".join(c.choices[0].delta.content or "" for c in chunks) == LINE_ENDS
        body = {"prompt": LINE_ENDS, "max_tokens": 1, "echo": True, "stream": True}
        events = client.completions.create(model="nanochat", **body)
        echoed = "".join(event.choices[0].text for event in events)
        assert echoed.startswith(LINE_ENDS)
        raw = httpx.post(running.url + "/v1/completions", json=body, timeout=60).text
        assert [*filter(None, raw.splitlines())] == [*filter(None, raw.split("\n"))]
