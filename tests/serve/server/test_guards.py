"""Who is let in: keys and guesses, rates, names, and addresses that a proxy tells."""

import httpx
import pytest

from nanochat_jax.config.serve import ChatWeb
from nanochat_jax.serve.server import guards
from nanochat_jax.serve.server.keys import VARIABLE, read_keys
from tests.serve.conftest import RunningServer, new_service
from tests.serve.server.asking import refused
from tests.serve.world import talking_model


def scope(address="192.0.2.1", path="/v1/models", method="GET", **headers):
    raw = [(name.encode(), value.encode()) for name, value in headers.items()]
    client = (address, 5000)
    return {"type": "http", "method": method, "path": path, "headers": raw, "client": client}


def status(check, *args, **more):
    refusal = check(scope(*args, **more))
    return 200 if refusal is None else refusal.status_code


def test_guessing_a_key_is_limited_and_the_right_guess_does_not_stand_out():
    check = guards.bearer_keys(("secret",))
    ask = lambda key, address="192.0.2.1": status(check, address, authorization=f"Bearer {key}")
    assert [ask(f"guess {i}") for i in range(guards.GUESSES)] == [401] * guards.GUESSES
    assert ask("one more") == ask("secret") == 429
    assert ask("secret", "192.0.2.2") == 200
    assert status(check) == 401  # no key is no guess
    assert status(check, path="/health", authorization="Bearer x") == 200


def test_right_keys_are_never_counted():
    check = guards.bearer_keys(("secret",))
    asked = [status(check, authorization="Bearer secret") for _ in range(3 * guards.GUESSES)]
    assert set(asked) == {200}


def test_an_address_has_its_rate_however_many_others_come():
    check = guards.rate_limit(2)
    post = lambda address: status(check, address, method="POST")
    assert [post("192.0.2.1") for _ in range(3)] == [200, 200, 429]
    for i in range(10_500):
        post(f"10.{i // 65536}.{i // 256 % 256}.{i % 256}")
    assert post("192.0.2.1") == 429
    assert status(check, "192.0.2.1", method="GET") == 200


def test_one_network_of_ipv6_has_one_rate():
    check = guards.rate_limit(1)
    post = lambda address: status(check, address, method="POST")
    assert [post(a) for a in ("2001:db8::1", "2001:db8::2", "2001:db8:0:1::1")] == [200, 429, 200]
    assert [post(a) for a in ("::ffff:192.0.2.1", "192.0.2.1", "::ffff:192.0.2.2")] == [
        200,
        429,
        200,
    ]


def test_without_a_key_a_local_server_answers_to_no_name_but_its_own():
    assert guards.guards_hosts(ChatWeb()) and guards.guards_hosts(ChatWeb(host="localhost"))
    assert not guards.guards_hosts(ChatWeb(api_key=("k",)))
    assert not guards.guards_hosts(ChatWeb(host="0.0.0.0"))
    assert guards.guards_hosts(ChatWeb(host="0.0.0.0", allowed_host=("a.example",)))
    check = guards.hosts(("chat.example.org", "*.lan"))
    own = "localhost localhost:8000 LOCALHOST:1 a.localhost 127.0.0.1:8000 [::1]:8000 10.1.2.3"
    own += " chat.example.org:80 Chat.Example.org. box.lan:8000"
    for host in own.split():
        assert status(check, host=host) == 200, host
    others = "evil.example evil.example:8000 127.0.0.1.evil.example localhost.evil lan [::1"
    for host in (others + " chat.example.org.evil a@127.0.0.1.evil x/127.0.0.1").split():
        assert status(check, host=host) == 403, host
    assert "--allowed-host evil.example" in check(scope(host="evil.example:80")).detail
    assert status(guards.hosts(("*",)), host="evil.example") == 200


def test_keys_come_from_flags_a_file_and_the_environment(tmp_path):
    file = tmp_path / "keys"
    file.write_bytes(b"\xef\xbb\xbfone\r\n\ntwo\n")
    cfg = ChatWeb(api_key=("flag",), api_key_file=str(file))
    assert read_keys(cfg, {VARIABLE: "three"}) == ("flag", "three", "one", "two")
    assert read_keys(ChatWeb(), {}) == read_keys(ChatWeb(), {VARIABLE: ""}) == ()
    file.write_text(" \n")
    with pytest.raises(ValueError, match="holds no key"):
        read_keys(cfg, {})
    with pytest.raises(ValueError, match="--api-key is empty"):
        ChatWeb(api_key=("",))


@pytest.mark.parametrize("asked, seen", [("", [200, 429]), ("127.0.0.1", [200, 200])])
def test_an_address_that_a_client_tells_is_believed_only_when_asked(asked, seen):
    flags = {"rate_limit": 1, "forwarded_allow_ips": asked}
    with RunningServer(new_service(talking_model([65], 32), slots=1, **flags)) as running:
        post = lambda told: httpx.post(
            running.url + "/tokenize", json={"prompt": "x"}, headers={"X-Forwarded-For": told}
        )
        running.wait_ready()
        assert [post(f"203.0.113.{i}").status_code for i in (1, 2)] == seen


def test_over_a_socket_guesses_rate_and_names_are_refused_with_openais_body():
    flags = {"api_key": ("secret",), "rate_limit": 2, "allowed_host": ("chat.example",)}
    with RunningServer(new_service(talking_model([65], 32), slots=1, **flags)) as running:
        with httpx.Client(base_url=running.url, timeout=60) as http:
            ask = lambda key, **more: http.post(
                "/tokenize", json={"prompt": "x"}, headers={"Authorization": key, **more}
            )
            refused(ask("Bearer no"), 401, None, "invalid_api_key")
            refused(ask("Bearer secret", Host="evil.example"), 403, None, "host")
            assert ask("bearer secret", Host="chat.example").status_code == 200
            refused(ask("Bearer secret"), 429, None, "rate_limit_exceeded")
        running.wait_ready()
