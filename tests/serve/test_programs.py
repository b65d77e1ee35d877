"""The programs from outside: signals, terminals, pipes, and what stops them from starting."""

import socket
import threading
import time

import httpx
import pytest

from tests.serve.programs import Typist, environment, make_base, run, web_server

MORE = {"messages": [{"role": "user", "content": "hi"}], "stream": True, "n": 16}


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return make_base(tmp_path_factory.mktemp("base"))


@pytest.mark.slow
def test_the_server_answers_503_while_it_loads_then_200_and_ends_well_on_sigterm(base):
    with web_server(base, "--slots", "1") as server:
        server.wait("loading", within_s=30)
        server.wait("ok")
        answer = httpx.get(server.url + "/v1/models", timeout=60)
        assert answer.json()["data"][0]["id"] == "nanochat-sft-d1"
        got = []
        ask = lambda: got.append(
            httpx.post(server.url + "/v1/chat/completions", json=MORE, timeout=60)
        )
        reader = threading.Thread(target=ask)
        reader.start()
        stats = lambda: httpx.get(server.url + "/stats", timeout=60).json()
        while reader.is_alive() and not stats()["busy_workers"]:
            time.sleep(0.01)
        code, seconds = server.stop()
        reader.join(10)
        said = server.process.stderr.read().splitlines()
    assert code == 0 and seconds < 10
    assert said[-1] == f"ready: {server.url}" and "compiling" in "".join(said[:-1])
    assert got[0].text.endswith("data: [DONE]\n\n")


@pytest.mark.slow
def test_sigterm_in_the_middle_of_compiling_ends_the_server_too(base, tmp_path):
    cold = tmp_path / "base"
    make_base(cold)
    (cold / "jax_cache").unlink()
    with web_server(cold, "--slots", "3") as server:
        server.wait("loading", within_s=30)
        code, seconds = server.stop()
    assert code == 0 and seconds < 10


def test_a_busy_port_is_told_before_anything_is_loaded(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        ended = run(tmp_path, "chat_web", "-p", str(port))
    assert ended.returncode == 2 and f"-p {port + 1}" in ended.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    "program, flags, said",
    [
        ("chat_web", ["--temprature", "1"], "did you mean --temperature?"),
        ("chat_web", ["-p", "99999"], "from 0 to 65535"),
        ("chat_web", ["-t", "9"], "from 0.0 to 2.0"),
        ("chat_web", ["-p", "0", "-i", "sft"], "python -m scripts.train --stage sft"),
        ("chat_cli", ["-i", "mid"], "python -m scripts.train --stage mid"),
        ("chat_cli", ["-p", " "], "-p is empty"),
    ],
)
def test_what_cannot_start_says_what_to_type(tmp_path, program, flags, said):
    ended = run(tmp_path, program, *flags)
    assert ended.returncode == 2 and said in ended.stderr + ended.stdout
    assert "Traceback" not in ended.stderr


@pytest.mark.slow
def test_piped_questions_are_answered_one_a_line_whatever_their_bytes(base):
    lines = [
        b"hi",
        b"clear",
        b"Who are you, caf\xe9?",
        b"\xe4\xbd",
        b"clear",
        b'"""',
        b"no end",
        b".",
    ]
    strict = {**environment(base), "PYTHONIOENCODING": "utf-8:strict"}
    ended = run(base, "chat_cli", "-m", "8", input=b"\n".join(lines), text=None, env=strict)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.count(b"\n") >= 4 and ended.stderr == 2 * b"(a new conversation)\n"
    assert b"\x1b" not in ended.stdout and b"User:" not in ended.stdout


@pytest.mark.slow
def test_one_question_on_the_command_line_is_answered_and_that_is_all(base):
    ended = run(base, "chat_cli", "-p", "hi", "-m", "8", "-t", "0")
    assert ended.returncode == 0 and len(ended.stdout.splitlines()) == 1
    ended = run(base, "chat_cli", "-p", "hi " * 40)
    assert ended.returncode == 2 and ended.stdout == ""
    assert "shorten it" in ended.stderr and "Traceback" not in ended.stderr


@pytest.mark.slow
def test_a_terminal_edits_stops_and_leaves_as_its_keys_say(base):
    with Typist(base) as person:
        assert (
            person.expect("starting JAX", within_s=10).strip().startswith("nanochat-sft-d1, step 1")
        )
        person.expect("nanochat-sft-d1: stage sft, step 1, 0.0 million parameters, context 64")
        person.at_prompt()
        person.type("/he\t\r")
        person.expect("/maxtokens [1 to 4096]")
        person.at_prompt()
        person.type("hello\r")
        person.expect("Assistant: ")
        person.type("\x03")
        person.expect("(stopped)")
        person.at_prompt()
        person.type("half a line\x03")
        person.expect("Ctrl-C again")
        person.at_prompt()
        person.type("/temperature 0.5\r")
        person.expect("temperature: 0.5")
        person.at_prompt()
        person.type("\x1b[A\x7f7\r")  # the last line again, its last character another
        person.expect("temperature: 0.7")
        person.at_prompt()
        person.type("quit\r")
        assert person.leave() == 0


@pytest.mark.slow
@pytest.mark.parametrize("keys", [["\x04"], ["exit\r"], ["\x03", "\x03"]])
def test_ctrl_d_exit_and_ctrl_c_twice_leave_with_0(base, keys):
    with Typist(base) as person:
        for key in keys:
            person.at_prompt()
            person.type(key)
        assert person.leave() == 0
