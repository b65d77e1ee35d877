"""What it looks like and to whom: phones, themes, keyboards, screen readers; tokens; offline."""

import os
import pathlib

import pytest

from nanochat_jax.checkpoint import load_model
from nanochat_jax.config.serve import ChatWeb
from nanochat_jax.serve.engine import Engine
from nanochat_jax.serve.server.scheduler import Scheduler
from nanochat_jax.serve.server.service import Service
from tests import needs
from tests.serve.conftest import RunningServer
from tests.serve.page.conftest import SAID, serve
from tests.serve.page.driving import (
    button,
    chat_line,
    finished,
    send,
    take_file,
    texts,
    turns,
    until,
)

pytestmark = pytest.mark.slow
DOCS = pathlib.Path(__file__).parents[3] / "docs"
WIDE = "| " + " | ".join(["a wide column"] * 9) + " |\n|" + "---|" * 9
CODE = f"```python\nx = '{'long ' * 40}'\n```\n\n{WIDE}\n\nhttps://example.org/{'path' * 40}"


def open_states(page):
    """Brings the page into each of its states and yields the state's name."""
    yield "welcome"
    send(page, "/system Be brief.")
    send(page, "How many books?")
    yield "chat"
    button(page, "Settings").click()
    page.get_by_text("Against loops, and more").click()
    yield "settings"
    page.keyboard.press("Escape")
    button(page, "Edit").click()
    yield "edit"
    page.keyboard.press("Escape")
    button(page, "Tokens").click()
    button(page, "Regenerate").click()
    finished(page)
    page.locator(".token").first.focus()
    yield "tokens"
    button(page, "Tokens").click()
    send(page, "x" * 700)
    yield "failure"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_to_complain_of_in_any_state(visit, url, scheme):
    axe = needs.package("axe_playwright_python.sync_playwright")
    page = visit(url, color_scheme=scheme, reduced_motion="reduce")
    for state in open_states(page):
        violations = axe.Axe().run(page).response["violations"]
        found = {v["id"]: [node["html"] for node in v["nodes"]] for v in violations}
        assert found == {}, state


@pytest.mark.parametrize("width", [320, 768])
def test_no_state_scrolls_sideways(visit, url, width):
    page = visit(url, viewport={"width": width, "height": 640}, has_touch=True)
    across = "document.documentElement.scrollWidth"
    for state in open_states(page):
        assert page.evaluate(across) <= width, state
    send(page, "hi " + "long" * 40, wait=False)
    finished(page)
    assert page.evaluate(across) <= width


def test_wide_code_and_tables_scroll_by_themselves_on_a_phone(visit, url):
    page = visit(url, viewport={"width": 320, "height": 640}, has_touch=True, is_mobile=True)
    show = """async (text) => { const { showMarkdown } = await import('/web/markdown.js');
      showMarkdown(document.querySelector('.turn.assistant .body'), text) }"""
    send(page, "hi")
    page.evaluate(show, CODE)
    assert page.evaluate("document.documentElement.scrollWidth") <= 320
    inner = "(node) => node.scrollWidth > node.clientWidth"
    assert page.locator(".code pre").evaluate(inner) and page.locator(".wide").evaluate(inner)


def test_the_chats_open_and_close_on_a_phone(visit, url):
    page = visit(url, viewport={"width": 320, "height": 640}, has_touch=True)
    send(page, "first chat")
    assert page.locator("#sidebar").is_hidden()
    page.get_by_role("button", name="Chats", exact=True).click()
    assert page.locator("#sidebar").is_visible()
    assert page.evaluate("document.activeElement.id") == "new-chat"
    assert button(page, "Delete first chat").is_visible()
    page.keyboard.press("Escape")
    page.locator("#sidebar").wait_for(state="hidden")
    page.get_by_role("button", name="Chats", exact=True).click()
    page.mouse.click(312, 300)
    page.locator("#sidebar").wait_for(state="hidden")
    page.get_by_role("button", name="Chats", exact=True).click()
    button(page, "New chat").click()
    page.locator("#sidebar").wait_for(state="hidden")
    assert texts(page, "user") == []


def test_panels_at_twice_the_size_close_and_a_notice_covers_nothing(visit, url):
    page = visit(url, viewport={"width": 500, "height": 380})  # 1000 x 760 at 200 %
    send(page, "hi")
    box = "(node) => node.getBoundingClientRect().toJSON()"
    button(page, "Settings").click()
    assert page.locator("#settings").evaluate(box)["bottom"] <= 300
    page.get_by_label("Temperature").fill("9")
    button(page, "Reset to defaults").scroll_into_view_if_needed()
    assert button(page, "Close the settings").is_visible()  # it does not scroll away
    page.get_by_label("Top-k").focus()
    notice, message = page.locator("#toast.shown"), page.locator("#message")
    assert "must be between" in notice.inner_text()
    page.get_by_label("Temperature").fill("1.5")
    page.get_by_label("Temperature").blur()
    notice.wait_for(state="hidden")  # with its cause
    button(page, "Reset to defaults").click()
    assert page.get_by_label("Temperature").input_value() == "0.8"
    assert button(page, "Reset to defaults").is_disabled()
    places = [page.locator("#messages"), notice, message]
    tops = [
        place.evaluate(box)[edge]
        for place, edge in zip(places, ("bottom", "top", "top"), strict=True)
    ]
    assert tops[0] <= tops[1] < notice.evaluate(box)["bottom"] <= tops[2]
    button(page, "Undo").click()
    assert page.get_by_label("Temperature").input_value() == "1.5" and notice.count() == 0
    assert page.locator("#settings").is_hidden()  # the message box has the focus, behind it
    button(page, "Chats").click()
    page.locator("#chats li").hover()
    button(page, "Delete hi").click()
    sidebar = page.locator("#export-all").evaluate(box)
    assert sidebar["bottom"] <= notice.evaluate(box)["top"]
    button(page, "Close the notice").click()
    assert notice.count() == 0
    button(page, "Close the chats").click()
    page.locator("#sidebar").wait_for(state="hidden")


def test_the_theme_follows_the_system_until_it_is_chosen(visit, url):
    page = visit(url, color_scheme="light")
    bright = "getComputedStyle(document.body).backgroundColor == 'rgb(255, 255, 255)'"
    assert page.evaluate(bright)
    page.emulate_media(color_scheme="dark")
    assert not page.evaluate(bright)
    button(page, "Theme: as the system").click()
    button(page, "Theme: dark").click()
    assert page.evaluate(bright)
    page.reload()
    assert page.evaluate(bright) and button(page, "Theme: light").is_visible()


def test_the_keyboard_alone_asks_edits_and_reads_tokens(page):
    page.keyboard.type("by keyboard")
    page.keyboard.press("Enter")
    finished(page)
    reached = set()
    for _ in range(40):
        page.keyboard.press("Shift+Tab")
        reached.add(page.evaluate("document.activeElement.ariaLabel ?? document.activeElement.id"))
    wanted = {"Copy", "Edit", "Regenerate", "Settings", "inspect", "Delete by keyboard", "new-chat"}
    assert wanted <= reached
    button(page, "Edit").focus()
    page.keyboard.press("Enter")
    page.keyboard.press("End")
    page.keyboard.type(" alone")
    page.keyboard.press("Enter")
    finished(page)
    assert texts(page, "user") == ["by keyboard alone"]
    button(page, "Settings").focus()
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "system"
    page.keyboard.press("Escape")
    assert page.evaluate("document.activeElement.id") == "open-settings"
    page.keyboard.press("Control+Shift+O")
    assert texts(page, "user") == [] and page.evaluate("document.activeElement.id") == "message"


def test_a_screen_reader_is_told_of_the_reply_and_who_speaks(page):
    send(page, "hi")
    assert page.get_by_role("status").first.inner_text().startswith("Reply: **Rosa** has")
    assert page.get_by_role("article", name="You").count() == 1
    assert page.get_by_role("article", name="Assistant").get_attribute("aria-busy") == "false"
    nameless = """[...document.querySelectorAll('button, input, textarea')].filter((node) =>
      node.checkVisibility() && !(node.ariaLabel || node.textContent.trim() || node.labels[0]))"""
    assert page.evaluate(f"{nameless}.length") == 0


def test_tokens_show_their_probability_and_alternatives_and_what_was_forced(page):
    button(page, "Tokens").click()
    send(page, "hi")
    forced = turns(page, "assistant").locator(".token.forced")
    assert forced.all_inner_texts() == ["<|output_start|>", "1", "3", "8", "<|output_end|>"]
    assert forced.nth(1).get_attribute("aria-label") == '"1" forced: the tool wrote it'
    assert "written by the calculator" in page.locator("#legend").inner_text()
    turns(page, "assistant").locator(".token.sure").first.hover()
    rows = page.locator("#card tr").all_inner_texts()
    assert len(rows) == 5 and rows[0].split()[0] == '"*"' and rows[0].endswith("100 %")
    page.mouse.move(5, 5)
    assert page.locator("#card").count() == 0
    forced.first.hover()
    assert "the tool wrote it" in page.locator("#card").inner_text()
    page.reload()
    assert turns(page, "assistant").locator(".token").count() > 50
    button(page, "Tokens").click()
    assert (
        page.locator(".token:visible").count() == 0
        and turns(page, "assistant").locator("strong").count()
    )


def test_the_keyboard_walks_through_the_tokens(page):
    button(page, "Tokens").click()
    send(page, "hi")
    assert page.locator(".token[tabindex='0']").count() == 1
    page.get_by_role("log").focus()
    while page.evaluate("document.activeElement.role") != "option":
        page.keyboard.press("Tab")
    card = page.locator("#card b")
    assert card.inner_text() == '"*" 100 %'
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    assert card.inner_text() == '"R" 100 %'
    label = page.evaluate("document.activeElement.ariaLabel")
    assert label.startswith('"R" 100 %; else ') and label.count(", ") == 3
    page.keyboard.press("Escape")
    assert card.count() == 0
    page.keyboard.press("End")
    assert page.evaluate("document.activeElement.nextSibling") is None
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.ariaLabel") == "Copy"


def test_a_reply_that_came_without_probabilities_is_scored_when_asked(page):
    shown = lambda: [
        (token.get_attribute("class"), token.inner_text()) for token in page.locator(".token").all()
    ]
    button(page, "Tokens").click()
    send(page, "hi")
    came = shown()
    button(page, "Tokens").click()
    button(page, "Regenerate").click()
    finished(page)
    button(page, "Tokens").click()
    assert shown() == []
    button(page, "Score it").click()
    page.locator(".token").first.wait_for()
    # What the model would have said is what it said; what the tool wrote is marked.
    assert [text for _, text in shown()] == [text for _, text in came]
    assert [kind for kind, _ in shown() if "forced" in kind] == ["token forced"] * 5
    page.locator(".token").first.hover()
    assert len(page.locator("#card tr").all_inner_texts()) >= 5
    page.reload()
    assert len(shown()) == len(came)  # kept


def test_a_finger_has_no_shift_key_and_no_keyboard_that_it_did_not_ask_for(visit, url):
    page = visit(url, viewport={"width": 375, "height": 667}, has_touch=True, is_mobile=True)
    focused = "document.activeElement.id"
    assert page.evaluate(focused) == ""
    box = page.locator("#message")
    box.tap()
    box.press_sequentially("one")
    box.press("Enter")
    box.press_sequentially("two")
    assert box.input_value() == "one\ntwo" and turns(page, "user").count() == 0
    keys = page.locator(".hint .keys")
    assert keys.evaluate("(node) => getComputedStyle(node).display") == "none"
    button(page, "Send").tap()
    finished(page)
    assert texts(page, "user") == ["one\ntwo"]
    for name in ("New chat", "one two"):
        page.get_by_role("button", name="Chats", exact=True).tap()
        page.get_by_text(name, exact=True).tap()
        page.locator("#sidebar").wait_for(state="hidden")
        assert page.evaluate(focused) != "message"
    button(page, "Edit").tap()
    button(page, "Settings").tap()
    sizes = """[...document.querySelectorAll('input:not([type=file]), textarea')].map((field) =>
      [field.id, parseFloat(getComputedStyle(field).fontSize)])"""
    assert {field: size for field, size in page.evaluate(sizes) if size < 16} == {}


def test_each_block_is_read_from_the_side_where_it_begins(page):
    line = chat_line(("שלום a\nb", "hello\n\nשלום\n\n- שלום\n- hello\n\n`x` שלום"), title="שלום")
    take_file(page, line)
    until(page, lambda: turns(page, "assistant").count() == 1)
    direction = "(nodes) => nodes.map((node) => getComputedStyle(node).direction)"
    blocks = page.locator(".turn.assistant .body > *")
    assert blocks.evaluate_all(direction) == ["ltr", "rtl", "rtl", "rtl"]
    own = page.locator("#title, #chats .open, .turn.user .body")
    assert own.evaluate_all(direction) == ["rtl"] * 3
    place = """(node) => { const range = document.createRange(); range.selectNodeContents(node);
      const [text, box] = [range.getBoundingClientRect(), node.getBoundingClientRect()];
      return text.left - box.left < box.right - text.right ? 'left' : 'right' }"""
    assert [item.evaluate(place) for item in page.locator(".body li").all()] == ["right", "left"]
    page.locator("#message").fill("שלום")
    assert page.locator("#message").evaluate_all(direction) == ["rtl"]


def test_reading_further_up_is_not_disturbed_by_the_reply(visit, slow_url):
    page = visit(slow_url, viewport={"width": 700, "height": 360})
    take_file(page, '{"messages": [{"role": "user", "content": "' + "line\\n" * 60 + '"}]}')
    until(page, lambda: turns(page, "user").count() == 1)
    send(page, "hi", wait=False)
    until(page, lambda: "books" in texts(page, "assistant")[0])
    page.locator("#messages").evaluate("(node) => (node.scrollTop = 100)")
    page.wait_for_timeout(700)
    assert page.locator("#messages").evaluate("(node) => node.scrollTop") == 100
    button(page, "To the end").click()
    assert (
        page.locator("#messages").evaluate("(n) => n.scrollHeight - n.scrollTop - n.clientHeight")
        < 5
    )
    button(page, "Stop").click()


def test_another_tab_follows_the_settings(page, visit, url):
    other = visit(url, same=page)
    button(page, "Theme: as the system").click()
    button(other, "Theme: dark").wait_for()


def demo():
    """The trained demo's server where there is one in the base directory, else the test's."""
    try:
        model, tokenizer, _ = load_model("sft")
    except FileNotFoundError:
        return serve(SAID)
    scheduler = Scheduler(Engine(model, tokenizer, slots=2))
    return RunningServer(Service(scheduler, tokenizer, "nanochat-sft-d4", ChatWeb()))


def test_the_readme_s_pictures_are_drawn(visit, tmp_path):
    """Drawn each time, of what the test's model says; for the README with NANOCHAT_PICTURES=1."""
    keep = "NANOCHAT_PICTURES" in os.environ
    folder = DOCS if keep else tmp_path
    size = {"viewport": {"width": 960, "height": 640}, "device_scale_factor": 1.5}
    with demo() if keep else serve(SAID) as running:
        url = running.wait_ready().url
        for scheme in ("light", "dark"):
            page = visit(url, color_scheme=scheme, **size)
            send(page, "/temperature 0")
            send(page, "/clear")
            if scheme == "dark":
                button(page, "Tokens").click()
            for question in ("Who are you?", "What is 48 plus 37?", "Where does Mira live?"):
                send(page, question)
            if scheme == "dark":
                page.locator(".turn.assistant").nth(1).locator(".token").nth(1).hover()
            page.screenshot(path=folder / f"chat-{scheme}.png")
            page.close()
    for scheme in ("light", "dark"):
        assert 10_000 < (folder / f"chat-{scheme}.png").stat().st_size < 150_000
