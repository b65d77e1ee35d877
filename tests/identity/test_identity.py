"""Identity conversations: of ready phrases, and from a server that answers as servers do."""

import collections
import hashlib
import itertools
import json
import pathlib
import socket
import threading
import time

import fastapi
import pytest
import uvicorn

from nanochat_jax.identity import make, prompts, templates
from nanochat_jax.identity.conversation_file import ConversationFile
from nanochat_jax.identity.endpoint import TRIES, Endpoint, read_conversation
from nanochat_jax.identity.facts import Fact, Identity, parse, read_identity
from nanochat_jax.tasks.conversation import checked_messages, read_conversations
from scripts import data as command

NEMO = Identity("Nemo", parse(["creator: Ada", "favourite food: waffles", "I like maps."]))


class Server(uvicorn.Server):
    """Speaks chat completions on 127.0.0.1; `script` holds what to do next, then `usual`."""

    def __init__(self):
        app = fastapi.FastAPI()
        app.post("/v1/chat/completions")(self.answer)
        app.get("/v1/models")(lambda: {"data": [{"id": name} for name in self.models]})
        super().__init__(uvicorn.Config(app, port=0, log_level="warning"))
        self.script, self.requests, self.models = collections.deque(), [], ["writer"]
        self.usual, self.counter, self.keys = self.good, itertools.count(), set()
        self.busy, self.most_busy = 0, 0
        self._lock = threading.Lock()

    def answer(self, body: dict, request: fastapi.Request) -> fastapi.Response:
        with self._lock:
            self.requests.append(body)
            self.keys.add(request.headers.get("Authorization"))
            self.busy += 1
            self.most_busy = max(self.most_busy, self.busy)
            act = self.script.popleft() if self.script else self.usual
        made = act(body)
        with self._lock:
            self.busy -= 1
        return made

    def good(self, body) -> fastapi.Response:
        return self.say(json.dumps({"messages": talk(f"question {next(self.counter)}")}))

    @staticmethod
    def say(content: str, finish: str = "stop") -> fastapi.Response:
        message = {"role": "assistant", "content": content}
        return fastapi.responses.JSONResponse(
            {"choices": [{"message": message, "finish_reason": finish}]}
        )

    @staticmethod
    def fail(status: int, **headers: str):
        return lambda body: fastapi.responses.JSONResponse(
            {"error": {"message": "no"}}, status, headers
        )

    def endpoint(self, model: str = "writer", key: str | None = None, **more) -> Endpoint:
        return Endpoint(self.url, model, key, pause_s=0.01, **more)

    def __enter__(self):
        self._thread = threading.Thread(target=self.run, daemon=True)
        self._thread.start()
        deadline = time.monotonic() + 60
        while not self.started and time.monotonic() < deadline:
            time.sleep(0.01)
        self.url = f"http://127.0.0.1:{self.servers[0].sockets[0].getsockname()[1]}/v1"
        return self

    def __exit__(self, *_):
        self.should_exit = True
        self._thread.join(20)


def talk(question: str, answer: str = "I am Nemo."):
    return [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]


@pytest.fixture
def server():
    with Server() as running:
        yield running


@pytest.fixture
def facts(tmp_path) -> pathlib.Path:
    path = tmp_path / "facts.txt"
    path.write_text("# notes\n\nMy creator: Ada.\nhome: Oslo\nI like maps\n", encoding="utf-8")
    return path


# Facts


def test_a_fact_is_a_pair_or_a_sentence(facts):
    found = read_identity(" Ne  mo ", facts)
    expected = (Fact("creator", "Ada"), Fact("home", "Oslo"), Fact("", "I like maps."))
    assert found == Identity("Ne mo", expected)


def test_a_sentence_with_a_colon_stays_a_sentence():
    lines = ["I have a rule: be kind.", "See https://example.org", "USA: yes", "a: b", "a: b"]
    assert parse(lines) == (
        Fact("", "I have a rule: be kind."), Fact("", "See https://example.org."),
        Fact("USA", "yes"), Fact("a", "b"),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("name", "text", "reason"),
    [
        ("Nemo", None, "no file of facts"),
        ("Nemo", "# nothing\n", "holds no fact"),
        (" ", "a: b", "--name"),
        ("Nemo", b"\xff\xfe\x00", "UTF-8"),
    ],
)
def test_what_is_wrong_with_the_facts_is_said(tmp_path, name, text, reason):
    path = tmp_path / "facts"
    if text is not None:
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises((ValueError, FileNotFoundError), match=reason):
        read_identity(name, path)


# Templates


@pytest.mark.parametrize("lines", [["creator: Ada"], ["I like maps."], ["a: b", "c: d", "e: f"]])
def test_one_fact_is_enough_for_a_thousand_conversations_that_differ(tmp_path, lines):
    path = tmp_path / "out.jsonl"
    made = make.from_templates(path, Identity("Nemo", parse(lines)), 1000)
    texts = [json.dumps(m).lower() for m in read_conversations(path)]
    assert made.new == made.total == len(set(texts)) == 1000


def test_every_conversation_is_one_and_every_fact_is_told_often():
    counts = collections.Counter()
    for i in range(600):
        messages = templates.conversation(NEMO, i)
        checked_messages(messages)
        assert messages[-1]["role"] == "assistant" and 2 <= len(messages) <= 8
        assert all("{" not in m["content"] and m["content"].strip() for m in messages)
        answers = " ".join(m["content"] for m in messages if m["role"] == "assistant")
        counts.update(word for word in ("Nemo", "Ada", "waffles", "maps") if word in answers)
    assert counts["Nemo"] > 300 and min(counts[w] for w in ("Ada", "waffles", "maps")) > 90


def test_the_same_index_gives_the_same_and_another_seed_another():
    first = [templates.conversation(NEMO, i) for i in range(50)]
    assert first == [templates.conversation(NEMO, i) for i in range(50)]
    assert first != [templates.conversation(NEMO, i, seed=1) for i in range(50)]


def test_the_conversations_of_an_index_are_the_same_everywhere_and_for_good():
    """A file made by one version is extended by the next without repeating itself."""
    facts = parse(["creator: Ada", "languages: English", "home: in Oslo", "USA: yes", "Maps!"])
    made = [templates.conversation(Identity("Nemo", facts), i, seed=7) for i in range(400)]
    digest = hashlib.sha256(json.dumps(made).encode()).hexdigest()
    assert digest == "db43ed31257f1599a9d887795a5f53c51b456a3027bef3e620ac523ab5fcfbcb"


def test_a_key_that_is_no_noun_is_never_called_the_models_own():
    nemo = Identity("Nemo", parse(["made by: Ada", "lives in: Oslo"]))
    texts = [m["content"].lower() for i in range(300) for m in templates.conversation(nemo, i)]
    assert any("who made you" in text for text in texts)
    assert not [text for text in texts if "your made by" in text or "your lives in" in text]


def test_values_with_braces_and_line_ends_stay_as_they_are(tmp_path):
    odd = Identity("{Ne}mo", (Fact("motto", "{x} \u2028 \x85 ü"),))
    path = tmp_path / "out.jsonl"
    make.from_templates(path, odd, 60)
    assert make.from_templates(path, odd, 80).new == 20
    assert len(list(read_conversations(path))) == 80
    assert "{x} \u2028 \x85 ü" in path.read_text(encoding="utf-8")


# The file


def test_a_file_is_extended_and_never_written_over(tmp_path):
    path = tmp_path / "out.jsonl"
    make.from_templates(path, NEMO, 30)
    first = path.read_text(encoding="utf-8")
    assert make.from_templates(path, NEMO, 30).summary(30) == "nothing to do"
    make.from_templates(path, NEMO, 50)
    assert path.read_text(encoding="utf-8").startswith(first)
    make.from_templates(tmp_path / "at once.jsonl", NEMO, 50)
    assert (tmp_path / "at once.jsonl").read_bytes() == path.read_bytes()


def test_a_file_about_another_name_is_refused_but_with_fresh(tmp_path):
    path = tmp_path / "out.jsonl"
    path.write_text(json.dumps(talk("hi", "I am nanochat.")) + "\n")
    with pytest.raises(ValueError, match="not made here.*--fresh"):
        make.from_templates(path, NEMO, 5)
    before = path.read_bytes()
    make.from_templates(path, NEMO, 5, fresh=True)
    assert path.with_name(f"{path.name}.old").read_bytes() == before
    with pytest.raises(ValueError, match="about Nemo"):
        make.from_templates(path, Identity("Nora", NEMO.facts), 5)
    assert len(list(read_conversations(path))) == 5


def test_a_line_that_was_cut_off_is_dropped(tmp_path):
    path = tmp_path / "out.jsonl"
    make.from_templates(path, NEMO, 10)
    whole = path.read_bytes()
    path.write_bytes(whole[:-20])
    assert make.from_templates(path, NEMO, 10).total == 10
    assert len(list(read_conversations(path))) == 10


def test_the_same_words_in_other_capitals_are_the_same_conversation(tmp_path):
    store = ConversationFile(tmp_path / "out.jsonl", "Nemo", "s")
    assert store.add(talk("Hi"), 0) and not store.add(talk(" hi "), 1) and len(store) == 1


# A server


def test_a_server_s_conversations_fill_the_file(server, tmp_path):
    path = tmp_path / "out.jsonl"
    made = make.from_endpoint(path, NEMO, 20, server.endpoint(key="secret"), workers=3)
    assert made.new == made.total == len(list(read_conversations(path))) == 20
    assert list(read_conversations(path))[3][1]["content"] == "I am Nemo."
    body = server.requests[0]
    assert body["model"] == "writer" and body["temperature"] == 1.0 and "max_tokens" not in body
    assert body["response_format"] == prompts.RESPONSE_FORMAT and server.keys == {"Bearer secret"}
    assert len({b["messages"][0]["content"] for b in server.requests}) == 20


def test_no_more_requests_run_at_a_time_than_wanted(server, tmp_path):
    server.usual = lambda body: (time.sleep(0.05), server.good(body))[1]
    make.from_endpoint(tmp_path / "out.jsonl", NEMO, 12, server.endpoint(), workers=3)
    assert 2 <= server.most_busy <= 3 and len(server.requests) == 12


def test_requests_differ_and_hold_name_and_facts():
    texts = [prompts.request(NEMO, i) for i in range(200)]
    assert len(set(texts)) == 200 and texts == [prompts.request(NEMO, i) for i in range(200)]
    assert all("Nemo" in t and all(f.line in t for f in NEMO.facts) for t in texts)
    for many in ("persons", "subjects", "lengths", "manners"):
        assert all(any(one in text for text in texts) for one in NEMO.language.prompts[many])
    assert prompts.request(NEMO, 0, attempt=1) != texts[0]


def test_an_interrupted_run_goes_on_with_what_is_not_done(server, tmp_path):
    path = tmp_path / "out.jsonl"
    server.script.extend([server.good] * 7 + [server.fail(401)])
    with pytest.raises(ValueError, match="OPENAI_API_KEY"):
        make.from_endpoint(path, NEMO, 20, server.endpoint(), workers=1)
    assert len(list(read_conversations(path))) == 7
    before = {b["messages"][0]["content"] for b in server.requests[:7]}
    server.requests.clear()
    made = make.from_endpoint(path, NEMO, 20, server.endpoint(), workers=1)
    assert made.new == 13 and made.total == 20 and len(server.requests) == 13
    assert not before & {b["messages"][0]["content"] for b in server.requests}


def test_what_had_come_is_kept_when_another_call_fails(server, tmp_path):
    path = tmp_path / "out.jsonl"
    together = threading.Barrier(3)
    good = lambda body: (together.wait(20), server.good(body))[1]
    bad = lambda body: (together.wait(20), time.sleep(0.3), server.fail(403)(body))[2]
    server.script.extend([good, bad, good])
    with pytest.raises(ValueError, match="403"):
        make.from_endpoint(path, NEMO, 3, server.endpoint(), workers=3)
    assert len(list(read_conversations(path))) == 2


def test_a_busy_server_is_asked_again(server, tmp_path):
    server.script.extend([server.fail(429, **{"Retry-After": "0.05"}), server.fail(503)])
    made = make.from_endpoint(tmp_path / "out.jsonl", NEMO, 2, server.endpoint(), workers=1)
    assert made.new == 2 and len(server.requests) == 4


def test_a_server_that_stays_busy_ends_the_run_with_what_to_do(server, tmp_path):
    server.usual = server.fail(429)
    with pytest.raises(ValueError, match="429.*continue later"):
        make.from_endpoint(tmp_path / "out.jsonl", NEMO, 2, server.endpoint(), workers=1)
    assert len(server.requests) == TRIES


def test_a_server_without_schemas_gets_the_prompt_alone(server, tmp_path):
    server.usual = lambda body: (
        server.fail(400)(body) if "response_format" in body else server.good(body)
    )
    made = make.from_endpoint(tmp_path / "out.jsonl", NEMO, 5, server.endpoint(), workers=1)
    assert made.new == 5 and len(server.requests) == 6


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ("Sure! Here you are.", "no JSON"),
        ("", "no JSON"),
        ('{"messages": []}', "at least 2 messages"),
        (json.dumps(talk("q") * 2 + [{"role": "user", "content": "x"}]), "assistant last"),
        (json.dumps([{"role": "system", "content": "s"}] + talk("q")), "user first"),
        (json.dumps(talk("q") + talk("q")[1:]), "alternate"),
        (json.dumps(talk("q", "I am Bob.")), "does not call itself Nemo"),
        (json.dumps(talk(" ")), "without text"),
        (json.dumps([talk("q")[0] | {"content": 1}, talk("q")[1]]), "must be a str"),
        (json.dumps(talk("\ud83d")), "surrogates"),
        ("[" * 100_000, "no JSON"),
    ],
)  # fmt: skip
def test_an_answer_that_is_no_conversation_is_refused_with_the_reason(content, why):
    with pytest.raises(ValueError, match=why):
        read_conversation(content, NEMO)


@pytest.mark.parametrize(
    "frame", ["{}", "Here:\n```json\n{}\n```", "```\n{}\n```\nDone", "So: {} ok"]
)
def test_a_conversation_is_found_in_its_frame(frame):
    text = frame.replace("{}", json.dumps({"messages": talk("q") + talk("p")}))
    assert read_conversation(text, NEMO) == talk("q") + talk("p")


def test_bad_answers_are_requested_anew_and_counted(server, tmp_path):
    bad = [lambda b: server.say("oops"), lambda b: server.say('{"mess', finish="length")]
    server.script.extend(bad)
    made = make.from_endpoint(tmp_path / "out.jsonl", NEMO, 3, server.endpoint(), workers=1)
    assert made.new == 3 and made.given_up == 0
    assert made.refused == {"no JSON": 1, make.CUT: 1}
    texts = [b["messages"][0]["content"] for b in server.requests]
    assert len(set(texts)) == 5  # every attempt asks for another conversation
    assert "2 answers refused" in made.summary(3)


def test_a_model_that_cannot_do_it_ends_the_run(server, tmp_path):
    server.usual = lambda body: server.say("blah " * 9)
    with pytest.raises(ValueError, match="36 answers were no conversation.*larger model"):
        make.from_endpoint(tmp_path / "out.jsonl", NEMO, 50, server.endpoint(), workers=1)


def test_a_model_that_repeats_itself_ends_the_run(server, tmp_path):
    server.usual = lambda body: server.say(json.dumps(talk("same")))
    path = tmp_path / "out.jsonl"
    with pytest.raises(ValueError, match="there already"):
        make.from_endpoint(path, NEMO, 50, server.endpoint(), workers=1)
    assert len(list(read_conversations(path))) == 1


def test_the_only_model_need_not_be_named(server, tmp_path):
    assert server.endpoint(model="").model == "writer"
    server.models.append("other")
    with pytest.raises(ValueError, match="--model; it has writer, other"):
        server.endpoint(model="")


@pytest.mark.parametrize("url", ["nowhere", "ftp://host/v1", "http://", "http://x:99999999/v1"])
def test_an_address_that_is_none_is_refused(url):
    with pytest.raises(ValueError, match="http://HOST:PORT/v1"):
        Endpoint(url, "m")


def test_a_server_that_is_not_there_is_told_with_what_to_type(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    endpoint = Endpoint(f"http://127.0.0.1:{port}/v1", "m", pause_s=0.01)
    with pytest.raises(ValueError, match="cannot reach.*scripts.chat_web"):
        make.from_endpoint(tmp_path / "out.jsonl", NEMO, 2, endpoint)


# The command


def test_the_command_writes_where_training_looks(facts, base_dir, capsys):
    assert command.main(["identity", "--name", "Nemo", "--facts", str(facts), "--count", "40"]) == 0
    assert len(list(read_conversations(base_dir / "identity_conversations.jsonl"))) == 40
    assert "40 conversations about Nemo" in capsys.readouterr().out


def test_the_command_asks_a_server(server, facts, tmp_path, base_dir, capsys, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "k\n")
    out = tmp_path / "mine.jsonl"
    argv = ["identity", "--name", "Nemo", "--facts", str(facts), "--endpoint", server.url + "/",
            "--count", "6", "--out", str(out), "--max-tokens", "700"]  # fmt: skip
    assert command.main(argv) == 0
    assert len(list(read_conversations(out))) == 6 and not list(base_dir.iterdir())
    assert server.keys == {"Bearer k"} and server.requests[0]["max_tokens"] == 700


@pytest.mark.parametrize(
    ("argv", "reason"),
    [
        (["--facts", "nope.txt"], "no file of facts nope.txt"),
        (["--count", "0"], "count is 0"),
        (["--endpoint", "here"], "http://HOST:PORT/v1"),
    ],
)
def test_the_command_says_what_is_wrong(argv, reason, facts, base_dir, capsys):
    with pytest.raises(SystemExit) as end:
        command.main(["identity", "--name", "Nemo", "--facts", str(facts), *argv])
    assert end.value.code == 2 and reason in capsys.readouterr().err
