"""Clients that are slow, endless or deaf, on real sockets."""

import json
import socket
import time

import httpx
import pytest

from nanochat_jax.serve.server import connections
from tests.serve.server.asking import ASK, post

HEAD = b"POST /tokenize HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"


@pytest.fixture
def dial(server):
    """Opens connections to the server and sends their first bytes."""
    opened = []

    def connect(first=b""):
        host, port = server.url.removeprefix("http://").split(":")
        opened.append(socket.create_connection((host, int(port)), timeout=20))
        opened[-1].sendall(first)
        return opened[-1]

    yield connect
    for connection in opened:
        connection.close()


def rest(connection):
    """(what still came, seconds until the server ended the connection)."""
    began, came = time.monotonic(), b""
    try:
        while data := connection.recv(65536):
            came += data
    except ConnectionError:
        pass
    return came, time.monotonic() - began


def status_of(raw):
    return int(raw.split(b" ", 2)[1])


def error_of(raw):
    return json.loads(raw.partition(b"\r\n\r\n")[2])["error"]


@pytest.mark.parametrize("first", [b"GET / HTTP/1.1\r\nHost: local", b"GET", HEAD])
def test_a_head_that_never_ends_is_answered_408(dial, monkeypatch, first):
    monkeypatch.setattr(connections, "HEAD_S", 0.3)
    raw, seconds = rest(dial(first))
    assert status_of(raw) == 408 and error_of(raw)["code"] == "timeout"
    assert 0.2 < seconds < 5


@pytest.mark.parametrize(
    "body", [b"Content-Length: 20\r\n\r\n{", b"Transfer-Encoding: chunked\r\n\r\n1\r\n{\r\n"]
)
def test_a_body_that_never_ends_is_answered_408(dial, monkeypatch, body):
    monkeypatch.setattr(connections, "BODY_S", 0.3)
    raw, seconds = rest(dial(HEAD + body))
    assert status_of(raw) == 408 and 0.2 < seconds < 5


def test_a_byte_now_and_then_does_not_put_it_off(dial, monkeypatch):
    monkeypatch.setattr(connections, "HEAD_S", 0.5)
    connection, began = dial(b"GET / HTTP/1.1\r\n"), time.monotonic()
    try:
        while time.monotonic() - began < 5:
            connection.sendall(b"a: b\r\n")
            time.sleep(0.05)
    except ConnectionError:
        pass
    assert time.monotonic() - began < 4


def test_a_connection_on_which_nothing_or_nothing_but_blank_lines_come_just_ends(dial, monkeypatch):
    monkeypatch.setattr(connections, "HEAD_S", 0.3)
    assert rest(dial())[0] == b""
    connection = dial(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
    assert connection.recv(65536)
    connection.sendall(b"\r\n")  # stops uvicorn's clock between requests
    assert rest(connection)[1] < 5


def test_a_head_without_end_is_refused_long_before_it_fills_the_memory(dial):
    connection = dial(b"GET / HTTP/1.1\r\n")
    try:
        for i in range(4 * connections.HEAD_BYTES // 1024):
            connection.sendall(b"a%d: " % i + b"x" * 1000 + b"\r\n")
    except ConnectionError:
        pass
    raw, _ = rest(connection)
    assert not raw or status_of(raw) == 431  # sending on, we may be cut off before we read it


def test_large_but_bounded_heads_and_bodies_pass_and_connections_are_kept(http):
    for _ in range(2):
        answer = http.get("/health", headers={"x-much": "y" * 30_000})
        assert answer.status_code == 200
        assert http.post("/tokenize", json={"prompt": "x" * 900_000}).status_code == 200


def test_a_reply_takes_longer_than_a_request_may(server, monkeypatch):
    for limit in ("HEAD_S", "BODY_S"):
        monkeypatch.setattr(connections, limit, 0.2)
    tick = server.service.scheduler.engine.tick
    monkeypatch.setattr(server.service.scheduler.engine, "tick", lambda: time.sleep(0.1) or tick())
    with httpx.Client(base_url=server.url, timeout=60) as http:
        for _ in range(2):  # on one connection
            text = post(http, {**ASK, "stream": True, "max_tokens": 64}).text
            assert text.endswith("data: [DONE]\n\n")


def test_a_client_that_reads_nothing_is_cut_off(server, dial, http, monkeypatch):
    monkeypatch.setattr(connections, "WRITE_S", 0.3)
    count = 1500
    whole = count * len(http.get("/openapi.json").content)  # more than a kernel holds for one
    deaf = dial(count * b"GET /openapi.json HTTP/1.1\r\nHost: localhost\r\n\r\n")
    mine = deaf.getsockname()
    open_ = lambda: any(c.client == mine for c in server.server_state.connections)
    began = time.monotonic()
    while open_() and time.monotonic() - began < 20:
        time.sleep(0.05)
    assert not open_()
    raw, _ = rest(deaf)
    assert 0 < len(raw) < whole


def test_more_connections_than_there_may_be_are_told_so(dial, http, monkeypatch):
    http.get("/health")
    monkeypatch.setattr(connections, "CONNECTIONS", 4)
    ask = b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"
    for _ in range(6):
        dial()
    raw, _ = rest(dial(ask))
    assert status_of(raw) == 503 and "too many connections" in error_of(raw)["message"]
    assert http.get("/health").status_code == 200  # one that was there before
