"""The chat page in a real browser. Needs Chromium on the machine and the package playwright."""

import shutil
import time

import pytest

from nanochat_jax.serve.engine import Engine
from tests.serve.conftest import RunningServer, new_service
from tests.serve.world import BYTES, spoken, talking_model

sync_api = pytest.importorskip("playwright.sync_api", reason="install the package playwright")
CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium: apt-get install chromium"),
]
EVIL = "<img src=x onerror=alert(1)><script>alert(2)</script> [x](javascript:alert(3))"
SAID = f"**Rosa** has <<72+66>> books.\n\n- {EVIL}\n\n```python\nx < 3\n```\nGrüße"


class Slow(Engine):
    """Streams slowly enough to be watched and stopped."""

    def tick(self):
        time.sleep(0.03)
        return super().tick()


def serve(said=SAID):
    model = talking_model(spoken(said), sequence_len=2048)
    return RunningServer(new_service(model, slots=2, kind=Slow))


@pytest.fixture(scope="module")
def url():
    with serve() as running:
        yield running.wait_ready().url


@pytest.fixture(scope="module")
def browser():
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def page(browser, url):
    context = browser.new_context(viewport={"width": 1000, "height": 760})
    page = context.new_page()
    page.problems, page.elsewhere = [], []
    page.on("pageerror", lambda error: page.problems.append(str(error)))
    page.on("dialog", lambda dialog: page.problems.append(dialog.message))
    page.on("request", lambda r: r.url.startswith(url) or page.elsewhere.append(r.url))
    page.goto(url)
    yield page
    assert page.problems == [] and page.elsewhere == []
    context.close()


def button(page, name):
    return page.get_by_role("button", name=name, exact=True)


def send(page, text, wait=True):
    page.get_by_role("textbox").last.fill(text)
    page.keyboard.press("Enter")
    if wait:
        finished(page)


def finished(page):
    page.wait_for_function("document.getElementById('stop').hidden", timeout=20_000)


def turns(page, role):
    return page.locator(f".turn.{role} .body")


def test_a_message_is_streamed_and_shown_as_markdown_with_its_tool_call(page):
    send(page, "How many books?", wait=False)
    button(page, "Stop").wait_for()
    finished(page)
    reply = turns(page, "assistant").last
    assert reply.locator("strong").inner_text() == "Rosa"
    assert reply.locator(".tool").all_inner_texts() == ["calculator 72+66", "result 138"]
    assert reply.locator("pre code").inner_text() == "x < 3"
    assert "Grüße" in reply.inner_text()


def test_nothing_that_is_written_becomes_an_element(page):
    send(page, EVIL)
    assert page.locator("#messages img, #messages script, #messages a").count() == 0
    assert turns(page, "user").first.inner_text() == EVIL
    assert "onerror=alert(1)" in turns(page, "assistant").last.inner_text()


def test_stop_keeps_what_came_and_the_chat_goes_on(page):
    send(page, "hi", wait=False)
    page.wait_for_timeout(300)
    button(page, "Stop").click()
    assert "Stopped." in page.locator(".turn.assistant").last.inner_text()
    send(page, "again")
    assert turns(page, "assistant").count() == 2


def test_editing_a_turn_drops_what_came_after_it(page):
    send(page, "first")
    send(page, "second")
    page.locator(".turn.user").first.hover()
    page.locator(".turn.user").first.get_by_role("button", name="Edit").click()
    box = page.get_by_label("Edit message")
    box.fill("changed")
    box.press("Enter")
    finished(page)
    assert turns(page, "user").all_inner_texts() == ["changed"]
    assert turns(page, "assistant").count() == 1


def test_regenerate_asks_again_for_the_same_turn(page):
    send(page, "hi")
    button(page, "Regenerate").last.click()
    finished(page)
    assert turns(page, "user").count() == turns(page, "assistant").count() == 1


def test_a_reload_shows_the_same_chat_and_another_tab_sees_it_too(page, url):
    send(page, "remember me")
    page.reload()
    assert turns(page, "user").all_inner_texts() == ["remember me"]
    other = page.context.new_page()
    other.goto(url)
    assert turns(other, "user").all_inner_texts() == ["remember me"]
    send(other, "from the other tab")
    page.wait_for_function("document.querySelectorAll('.turn.user').length == 2")


def test_two_tabs_with_two_chats_do_not_mix(page, url):
    send(page, "one")
    other = page.context.new_page()
    other.goto(url)
    button(other, "+ New chat").click()
    send(other, "two")
    page.reload()
    other.reload()
    assert turns(page, "user").all_inner_texts() == ["one"]
    assert turns(other, "user").all_inner_texts() == ["two"]


def test_chats_are_renamed_exported_deleted_and_brought_back(page):
    send(page, "old name")
    page.locator("#chats li").first.hover()
    page.get_by_role("button", name="Rename old name").click()
    page.get_by_label("New name").fill("new name")
    page.keyboard.press("Enter")
    page.locator("#chats li").first.hover()
    with page.expect_download() as download:
        page.get_by_role("button", name="Export new name").click()
    assert download.value.suggested_filename == "new-name.json"
    page.get_by_role("button", name="Delete new name").click()
    assert page.locator("#chats li").count() == 0
    button(page, "Undo").click()
    assert turns(page, "user").all_inner_texts() == ["old name"]


def test_slash_commands_are_answered_here_and_never_sent(page):
    asked = []
    page.on("request", lambda r: "completions" in r.url and asked.append(r.post_data_json))
    for command in ("/temperature 0.3", "/temperature 7", "/topk 9", "/nonsense", "/help"):
        send(page, command)
    notes = turns(page, "console").all_inner_texts()
    assert "set to 0.3" in notes[0] and "between 0 and 2" in notes[1]
    assert "no command /nonsense" in notes[3] and not asked
    send(page, "hi")
    assert asked[0]["temperature"] == 0.3 and asked[0]["top_k"] == 9
    assert [message["role"] for message in asked[0]["messages"]] == ["user"]
    send(page, "/clear")
    assert turns(page, "user").count() == 0


def test_a_system_prompt_is_sent_first(page):
    asked = []
    page.on("request", lambda r: "completions" in r.url and asked.append(r.post_data_json))
    button(page, "Settings").click()
    page.get_by_label("System prompt").fill("Be brief.")
    send(page, "hi")
    assert asked[0]["messages"][0] == {"role": "system", "content": "Be brief."}


def test_tokens_show_their_probability_and_alternatives_and_what_was_forced(page):
    button(page, "Tokens").click()
    send(page, "hi")
    forced = page.locator(".token.forced").all_inner_texts()
    assert forced == ["<|output_start|>", "1", "3", "8", "<|output_end|>"]
    page.locator(".token.sure").first.hover()
    assert page.locator("#card tr").count() == 5
    button(page, "Tokens").click()
    assert page.locator(".token").count() == 0


def test_the_page_fits_a_phone_and_the_keyboard_reaches_everything(page):
    page.set_viewport_size({"width": 320, "height": 640})
    send(page, "hi " + "long" * 40)
    assert page.evaluate("document.documentElement.scrollWidth") <= 320
    button(page, "Chats").click()
    assert page.locator("#sidebar").is_visible()
    page.mouse.click(310, 300)
    names = page.locator("button:visible, input:visible, textarea:visible").evaluate_all(
        "nodes => nodes.map(n => n.ariaLabel || n.textContent || n.labels?.[0]?.textContent)"
    )
    assert all(name and name.strip() for name in names)


def test_a_restart_in_mid_stream_is_told_and_the_chat_goes_on(browser):
    first = serve("word " * 200)
    with first as running:
        page = browser.new_page()
        page.goto(running.wait_ready().url)
        send(page, "hi", wait=False)
        page.wait_for_timeout(300)
        running.force_exit = True
    page.locator(".failure").wait_for(timeout=15_000)
    assert "connection" in page.locator(".failure").inner_text()
    assert turns(page, "assistant").last.inner_text().startswith("word")
    page.get_by_text("does not answer").wait_for(timeout=10_000)
    second = serve("back again")
    second.config.port = int(running.url.rsplit(":", 1)[1])
    with second as running:
        running.wait_ready()
        page.locator("#banner").wait_for(state="hidden", timeout=15_000)
        button(page, "Retry").click()
        finished(page)
        assert turns(page, "assistant").all_inner_texts() == ["back again"]
        page.close()


def test_a_refusal_is_shown_in_the_servers_words(page):
    send(page, "x" * 2500)
    assert "context is 2048" in page.locator(".failure").inner_text()
    assert BYTES.get_vocab_size() == 265
