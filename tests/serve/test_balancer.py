"""Two servers behind nginx, one of which leaves: the examples of docs/serving.md as they stand."""

import contextlib
import json
import re
import signal
import subprocess
import threading
import time

import httpx
import pytest
import yaml

from nanochat_jax.config.resolve import resolve
from tests import needs
from tests.serve.programs import ROOT, free_port, make_base, web_server

ASK = {"messages": [{"role": "user", "content": "hi"}], "seed": 3, "temperature": 1.0}
LONG = ASK | {"stream": True, "n": 12}  # one after another, in a single slot
WHOLE = """
daemon off;
pid nginx.pid;
error_log stderr warn;
events {{}}
http {{
access_log off;
client_body_temp_path body;
proxy_temp_path proxy;
fastcgi_temp_path fastcgi;
uwsgi_temp_path uwsgi;
scgi_temp_path scgi;
{block}
}}
"""


def example(language):
    """The one block of that language in the document."""
    text = (ROOT / "docs" / "serving.md").read_text(encoding="utf-8")
    (block,) = re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)
    return block


@contextlib.contextmanager
def nginx(folder, ports):
    """The document's nginx before servers on two ports; gives its address."""
    program, own = needs.nginx(), free_port()
    block = example("nginx")
    for written, real in ((8001, ports[0]), (8002, ports[1]), (8000, own)):
        assert str(written) in block
        block = block.replace(str(written), str(real))
    (folder / "nginx.conf").write_text(WHOLE.format(block=block))
    process = subprocess.Popen([program, "-p", folder, "-c", "nginx.conf", "-e", "stderr"])
    try:
        yield f"http://127.0.0.1:{own}"
    finally:
        process.terminate()
        process.wait(10)


@contextlib.contextmanager
def started(base, *flags):
    """A server that takes requests."""
    with web_server(base, *flags) as server:
        server.wait("ok")
        yield server


class Client(threading.Thread):
    """Streams replies one after another until told to stop; keeps what it got of each."""

    def __init__(self, url):
        super().__init__(daemon=True)
        self.url, self.enough, self.got = url, threading.Event(), []

    def run(self):
        with httpx.Client(timeout=120) as http:
            while not self.enough.is_set():
                try:
                    answer = http.post(self.url + "/v1/chat/completions", json=LONG)
                    self.got.append((answer.status_code, answer.text))
                except httpx.HTTPError as error:
                    return self.got.append((0, repr(error)))


def asking(url, count):
    """So many clients, who have begun."""
    clients = [Client(url) for _ in range(count)]
    for client in clients:
        client.start()
    return clients


def replies_to(clients):
    """What all of them got, once they have ended."""
    for client in clients:
        client.enough.set()
    for client in clients:
        client.join(120)
    return [reply for client in clients for reply in client.got]


def well(status, text):
    """Whether all replies came to their own end."""
    events = [line[6:] for line in text.split("\n\n") if line.startswith("data: ")]
    ends = [json.loads(event) for event in events if event != "[DONE]"]
    reasons = [c["finish_reason"] for e in ends for c in e.get("choices", ())]
    return status == 200 and events[-1] == "[DONE]" and len([*filter(None, reasons)]) == LONG["n"]


def chat(url, body, **headers):
    headers = {name.replace("_", "-"): value for name, value in headers.items()}
    return httpx.post(url + "/v1/chat/completions", json=body, headers=headers, timeout=60)


def port_of(server):
    return int(server.url.rsplit(":", 1)[1])


def wait_until_nginx_is_there(url):
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        with contextlib.suppress(httpx.HTTPError):
            return httpx.get(url + "/health", timeout=10)
        time.sleep(0.05)
    raise AssertionError("nginx does not answer")


@pytest.mark.slow
def test_one_of_two_servers_leaves_while_clients_stream_and_no_reply_is_lost(tmp_path):
    base, flags = make_base(tmp_path / "base"), ("--slots=1", "--notice=1", "--drain=60")
    (tmp_path / "nginx").mkdir()
    with contextlib.ExitStack() as running:
        first, second = (running.enter_context(started(base, *flags)) for _ in range(2))
        with nginx(tmp_path / "nginx", [port_of(first), port_of(second)]) as url:
            wait_until_nginx_is_there(url)
            # Who answers cannot be told by the answer.
            asked = [chat(at, ASK).json()["choices"] for at in (first.url, second.url, url)]
            assert asked[0] == asked[1] == asked[2]
            clients = asking(url, 6)
            stats = lambda: httpx.get(first.url + "/stats", timeout=60).json()
            while not stats()["busy_workers"] or not stats()["waiting"]:
                time.sleep(0.02)
            first.process.send_signal(signal.SIGTERM)
            first.wait("draining", within_s=5)  # it still answers, and says that it leaves
            assert httpx.get(first.url + "/health", timeout=60).status_code == 503
            assert first.process.wait(90) == 0
            before = sum(len(client.got) for client in clients)
            while sum(len(client.got) for client in clients) < before + 6:
                time.sleep(0.05)
            got = replies_to(clients)
            assert len(got) >= 12 and all(well(*reply) for reply in got)
            assert second.process.poll() is None


@pytest.mark.slow
def test_through_nginx_a_stream_comes_as_it_is_made_and_addresses_are_the_clients(tmp_path):
    base = make_base(tmp_path / "base")
    (tmp_path / "nginx").mkdir()
    flags = ("--slots=1", "--rate-limit=1", "--forwarded-allow-ips=127.0.0.1")
    with started(base, *flags) as server:
        with nginx(tmp_path / "nginx", [port_of(server), free_port()]) as url:
            wait_until_nginx_is_there(url)
            began, times = time.monotonic(), []
            with httpx.stream("POST", url + "/v1/chat/completions", json=LONG, timeout=60) as reply:
                for _ in reply.iter_lines():
                    times.append(time.monotonic() - began)
            from_address = lambda number: chat(url, ASK, X_Forwarded_For=f"203.0.113.{number}")
            assert [from_address(n).status_code for n in (5, 5, 6)] == [200, 429, 200]
    assert times[0] < times[-1] / 2


@pytest.mark.slow
def test_a_second_signal_waits_for_no_reply(tmp_path):
    base = make_base(tmp_path / "base")
    with started(base, "--slots=1", "--notice=60", "--drain=600") as server:
        clients = asking(server.url, 3)
        while not httpx.get(server.url + "/stats", timeout=60).json()["waiting"]:
            time.sleep(0.02)
        server.process.send_signal(signal.SIGTERM)
        server.wait("draining", within_s=5)
        code, seconds = server.stop()
        got = replies_to(clients)
    assert code == 0 and seconds < 15
    streams = [text for status, text in got if status == 200]
    assert all(text.endswith("data: [DONE]\n\n") for text in streams)  # told, not cut
    assert any("engine_failed" in text for text in streams)


def test_the_manifest_for_kubernetes_names_flags_ports_and_times_that_fit():
    deployment, service = yaml.safe_load_all(example("yaml"))
    pod = deployment["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    cfg = resolve("chat_web", container["args"])
    (port,) = container["ports"]
    assert cfg.port == port["containerPort"] and cfg.host == "0.0.0.0"
    assert service["spec"]["ports"][0]["targetPort"] == port["name"]
    assert service["spec"]["selector"] == deployment["spec"]["template"]["metadata"]["labels"]
    assert service["spec"]["selector"] == deployment["spec"]["selector"]["matchLabels"]
    probes = [container[f"{name}Probe"]["httpGet"] for name in ("startup", "readiness", "liveness")]
    assert probes == [{"path": "/health", "port": port["name"]}] * 3
    stop = int(container["lifecycle"]["preStop"]["exec"]["command"][1])
    assert pod["terminationGracePeriodSeconds"] > stop + cfg.notice + cfg.drain + 6
