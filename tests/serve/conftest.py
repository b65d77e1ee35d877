"""A server with a tiny random model on a real socket, shared by the tests that talk to one."""

import threading
import time

import httpx
import openai
import pytest
import uvicorn

from nanochat_jax.config.serve import ChatWeb
from nanochat_jax.serve.engine import Engine
from nanochat_jax.serve.server.api import create_app
from nanochat_jax.serve.server.connections import settings
from nanochat_jax.serve.server.scheduler import Scheduler
from nanochat_jax.serve.server.service import Service
from tests.serve.server.asking import SAID
from tests.serve.world import BYTES, random_model, spoken, talking_model


class RunningServer(uvicorn.Server):
    """A uvicorn server in a thread; `url` is where it listens."""

    def __init__(self, service: Service):
        super().__init__(settings(create_app(service), service.cfg, port=0))
        self.service = service
        self._thread = threading.Thread(target=self.run, daemon=True)

    def __enter__(self):
        self._thread.start()
        deadline = time.monotonic() + 60
        while not self.started and time.monotonic() < deadline:
            time.sleep(0.01)
        port = self.servers[0].sockets[0].getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        return self

    def wait_ready(self):
        """Waits until everything is compiled."""
        assert self.service.scheduler.ready.wait(120)
        return self

    def __exit__(self, *_):
        self.should_exit = True
        self._thread.join(20)
        assert not self._thread.is_alive()


def new_service(
    model=None, slots: int = 4, queue_limit: int = 64, kind=Engine, base_id: str = "", **flags
) -> Service:
    """A service over `model` (None: a tiny random one with a context of 128 tokens)."""
    engine = kind(model or random_model(sequence_len=128), BYTES, slots=slots)
    cfg = ChatWeb(max_tokens=64, **flags)
    return Service(Scheduler(engine, queue_limit), BYTES, "nanochat-test", cfg, base_id)


@pytest.fixture(scope="session")
def server():
    with RunningServer(new_service()) as running:
        yield running.wait_ready()


@pytest.fixture
def http(server):
    with httpx.Client(base_url=server.url, timeout=60) as client:
        yield client


@pytest.fixture(scope="session")
def talker():
    """A server whose model always says `SAID`, slowly enough to be interrupted."""

    class Slow(Engine):
        def tick(self):
            time.sleep(0.04)
            return super().tick()

    model = talking_model(spoken(SAID), sequence_len=256)
    service = new_service(model, slots=2, queue_limit=2, kind=Slow)
    with RunningServer(service) as running:
        yield running.wait_ready()


@pytest.fixture(scope="session")
def client(server):
    return openai.OpenAI(base_url=server.url + "/v1", api_key="none", max_retries=0)
