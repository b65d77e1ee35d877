"""The chat page in a real Chromium, served by a real server whose model says what we want it to."""

import threading
import time

import pytest
import uvicorn

from nanochat_jax.serve.engine import Engine
from tests import needs
from tests.serve.conftest import RunningServer, new_service
from tests.serve.world import spoken, talking_model

EVIL = "<img src=x onerror=alert(1)><script>alert(2)</script> [x](javascript:alert(3))"
SAID = f"**Rosa** has <<72+66>> books.\n\n- {EVIL}\n\n```python\nx < 3\n```\nGrüße"
# No name but the test's own address can be looked up: what works here works without a network.
ALONE = ["--no-sandbox", "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"]


class Slow(Engine):
    """Streams slowly enough to be watched; `pause_s` a dispatch of eight tokens."""

    pause_s = 0.01

    def tick(self):
        time.sleep(self.pause_s)
        return super().tick()


def serve(said, context=512, port=0):
    """A server (not yet started) whose model always says `said`."""
    service = new_service(talking_model(spoken(said), context), slots=2, kind=Slow)
    running = RunningServer(service)
    running.config.port = port
    return running


class Front(uvicorn.Server):
    """Another address of `running`: it can be killed, or want a key, while that lives on."""

    def __init__(self, running, wrap=lambda app: app):
        app = wrap(running.config.app)
        super().__init__(uvicorn.Config(app, port=0, lifespan="off", log_level="critical"))
        self._thread = threading.Thread(target=self.run, daemon=True)

    def __enter__(self):
        self._thread.start()
        while not self.started:
            time.sleep(0.01)
        self.port = self.servers[0].sockets[0].getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        return self

    def __exit__(self, *_):
        self.should_exit = True
        self._thread.join(20)
        assert not self._thread.is_alive()


@pytest.fixture(scope="session")
def talker():
    """A server whose model says `SAID`."""
    with serve(SAID) as running:
        yield running.wait_ready()


@pytest.fixture
def url(talker):
    """Where it listens."""
    return talker.url


@pytest.fixture
def slow_url(talker, monkeypatch):
    """The same while its replies take some seconds."""
    monkeypatch.setattr(Slow, "pause_s", 0.5)
    return talker.url


@pytest.fixture(scope="module")  # it keeps an event loop in this thread: no longer than needed
def browser():
    sync_api = needs.package("playwright.sync_api")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=needs.chromium(), args=ALONE)
        yield browser
        browser.close()


@pytest.fixture
def visit(browser):
    """Opens pages in a profile of their own: `visit(url)`, with `same=page` another tab beside it.

    No page of a test may raise, open a dialog, or ask anything of any other server.
    """
    contexts, problems = [], []

    def watch(page, url):
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("dialog", lambda dialog: (problems.append(dialog.message), dialog.dismiss()))
        own = (url + "/", "blob:" + url)
        page.on("request", lambda r: r.url.startswith(own) or problems.append(r.url))

    def open_page(url, same=None, before="", **options):
        if same is None:
            options.setdefault("viewport", {"width": 1000, "height": 760})
            contexts.append(browser.new_context(**options))
        page = same.context.new_page() if same else contexts[-1].new_page()
        watch(page, url)
        if before:
            page.add_init_script(before)
        page.goto(url + "/")
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert problems == []


@pytest.fixture
def page(visit, url):
    return visit(url)
