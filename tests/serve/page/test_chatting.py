"""Asking, watching, stopping, changing one's mind."""

import threading

import pytest

from nanochat_jax.config.decoding import ADJUSTMENTS
from nanochat_jax.serve.commands import COMMANDS
from nanochat_jax.serve.server.guards import bearer_keys
from nanochat_jax.serve.server.middleware import Guard
from tests.serve.page.conftest import EVIL, Front, Slow, serve
from tests.serve.page.driving import (
    asked,
    button,
    finished,
    open_chat,
    problem,
    send,
    texts,
    toast,
    turns,
    until,
)

pytestmark = pytest.mark.slow
ICONS = """[...document.querySelectorAll('svg:not([hidden])')].filter((icon) =>
  icon.checkVisibility() && !icon.getBBox().width).map((icon) => icon.parentNode.outerHTML)"""


def test_a_message_is_streamed_and_shown_as_markdown_with_its_tool_call(page, monkeypatch):
    monkeypatch.setattr(Slow, "pause_s", 0.05)
    send(page, "How many books?", wait=False)
    button(page, "Stop").wait_for()
    seen = set()
    until(
        page, lambda: seen.add(len(page.locator(".turn.assistant").inner_text())) or len(seen) > 3
    )
    finished(page)
    reply = turns(page, "assistant").last
    assert reply.locator("strong").first.inner_text() == "Rosa"
    assert reply.locator(".tool").all_inner_texts() == ["calculator 72+66 = 138"]
    assert reply.locator("p").first.inner_text() == "Rosa has calculator 72+66 = 138 books."
    assert reply.locator("pre code").inner_text() == "x < 3"
    assert "Grüße" in reply.inner_text()
    assert page.locator(".turn.assistant .note").inner_text().split(" tokens")[0].isdigit()


def test_enter_sends_and_shift_enter_makes_a_new_line_in_the_last_text_box(page):
    box = page.get_by_role("textbox").last
    assert box.get_attribute("id") == "message"
    assert page.evaluate("[...document.querySelectorAll('input, textarea')].at(-1).id") == "message"
    box.press_sequentially("one")
    box.press("Shift+Enter")
    box.press_sequentially("two")
    assert turns(page, "user").count() == 0
    box.press("Enter")
    finished(page)
    assert texts(page, "user") == ["one\ntwo"] and box.input_value() == ""


def test_stop_keeps_what_came_and_the_chat_goes_on(visit, slow_url):
    page = visit(slow_url)
    send(page, "hi", wait=False)
    until(page, lambda: texts(page, "assistant")[0].startswith("Rosa"))
    button(page, "Stop").click()
    stopped = page.locator(".turn.assistant").inner_text()
    assert stopped.startswith("Rosa") and "Stopped." in stopped
    page.wait_for_timeout(300)
    assert page.locator(".turn.assistant").inner_text() == stopped
    until(page, lambda: page.request.get(slow_url + "/stats").json()["busy_workers"] == 0)
    sent = asked(page)
    send(page, "again", wait=False)
    until(page, lambda: turns(page, "assistant").count() == 2)
    page.keyboard.press("Escape")
    finished(page)
    roles = [message["role"] for message in sent[0]["messages"]]
    assert roles == ["user", "assistant", "user"]


def test_an_edited_turn_and_another_reply_are_versions_that_one_turns_over(page):
    send(page, "first")
    send(page, "second")
    sent = asked(page)
    page.locator(".turn.user").first.hover()
    button(page.locator(".turn.user").first, "Edit").click()
    box = page.get_by_label("Edit message")
    assert box.input_value() == "first"
    box.fill("changed")
    box.press("Enter")
    finished(page)
    assert texts(page, "user") == ["changed"] and turns(page, "assistant").count() == 1
    assert [message["content"] for message in sent[0]["messages"]] == ["changed"]
    assert page.evaluate("document.activeElement.id") == "message"
    button(page, "Regenerate").click()
    finished(page)
    versions = page.locator(".versions .note")
    assert versions.all_inner_texts() == ["2/2", "2/2"]
    button(page, "Previous version").first.click()
    assert texts(page, "user") == ["first", "second"] and turns(page, "assistant").count() == 2
    assert versions.all_inner_texts() == ["1/2"]
    assert page.evaluate("document.activeElement.ariaLabel") == "Next version"
    page.reload()
    assert texts(page, "user") == ["first", "second"] and versions.all_inner_texts() == ["1/2"]
    page.keyboard.press("Control+Shift+O")
    open_chat(page, "first")
    button(page, "Next version").click()
    assert texts(page, "user") == ["changed"] and versions.all_inner_texts() == ["2/2", "2/2"]
    button(page, "Previous version").last.click()
    assert versions.all_inner_texts() == ["2/2", "1/2"]


def test_an_edit_given_up_changes_nothing(page):
    send(page, "first")
    button(page, "Edit").click()
    page.get_by_label("Edit message").fill("other")
    page.keyboard.press("Escape")
    assert texts(page, "user") == ["first"] and turns(page, "assistant").count() == 1
    assert page.evaluate("document.activeElement.ariaLabel") == "Edit"


def test_regenerate_asks_again_for_the_same_turn(page):
    send(page, "hi")
    sent = asked(page)
    button(page, "Regenerate").last.click()
    finished(page)
    assert turns(page, "user").count() == turns(page, "assistant").count() == 1
    assert [message["content"] for message in sent[0]["messages"]] == ["hi"]


@pytest.mark.parametrize("clipboard", ["present", "absent"])  # it is absent on plain http
def test_copy_takes_what_was_said(visit, url, clipboard):
    hide = "Object.defineProperty(navigator, 'clipboard', {value: undefined})"
    page = visit(url, before=hide if clipboard == "absent" else "")
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    send(page, "hi there")
    pasted = []
    for copy in (
        button(page.locator(".turn.user"), "Copy"),
        button(page.locator(".turn.assistant"), "Copy"),
        button(page, "Copy code"),
    ):
        copy.click()
        page.get_by_text("Copied").first.wait_for()
        box = page.get_by_role("textbox").last
        box.fill("")
        box.press("Control+v")
        pasted.append(box.input_value())
    assert pasted[0] == "hi there" and pasted[2] == "x < 3"
    assert pasted[1].startswith("**Rosa** has [72+66=138] books.") and EVIL in pasted[1]


def test_slash_commands_are_answered_here_and_never_sent(page):
    sent = asked(page)
    commands = ["/temperature 0.3", "/temperature 7", "/topk 9", "/topk", "/topk 1.5"]
    for command in [*commands, "/maxtokens 40", "/system -", "/system Be brief.", "/help"]:
        send(page, command)
    notes = [note.split("\n", 1)[1] for note in texts(page, "console")]
    assert notes == [
        "temperature: 0.3",
        "temperature must be a number from 0 to 2, not “7”",
        "topk: 9",
        "topk: 9",
        "topk must be a whole number from 0 to 200, not “1.5”",
        "maxtokens: 40",
        "There is no system prompt.",
        "The system prompt is: Be brief.",
        notes[-1],
    ]
    assert "/clear" in notes[-1] and "/quit" not in notes[-1] and not sent
    send(page, "hi")
    expected = {"temperature": 0.3, "top_k": 9, "max_tokens": 40}
    assert {name: sent[0][name] for name in expected} == expected
    contents = [(message["role"], message["content"]) for message in sent[0]["messages"]]
    assert contents == [("system", "Be brief."), ("user", "hi")]
    send(page, "/clear")
    assert turns(page, "user").count() == turns(page, "console").count() == 0


def test_what_is_against_loops_is_sent_where_it_is_set_and_else_left_to_the_server(page):
    sent, names = asked(page), {*ADJUSTMENTS, "logit_bias"}
    send(page, "hi")
    assert not names & {*sent[0]}
    for command in (
        "/minp",
        "/minp 0.1",
        "/frequency -3",
        "/frequency -1.5",
        "/bias x",
        "/bias 65: -100, 66:.5",
    ):
        send(page, command)
    assert [note.split("\n", 1)[1].split(",")[0] for note in texts(page, "console")] == [
        "minp: as the server has it",
        "minp: 0.1",
        "frequency must be a number from -2 to 2",
        "frequency: -1.5",
        "bias must be up to 300 token ids",
        "bias: 65: -100",
    ]
    button(page, "Settings").click()
    page.get_by_text("Against loops, and more").click()
    for label, value in {
        "Repetition penalty": "1.25",
        "Presence penalty": "3",
        "Min-p": "",
    }.items():
        page.get_by_label(label).fill(value)
        page.get_by_label(label).blur()
    assert toast(page) == "Presence penalty must be between -2 and 2; the server's stays."
    page.get_by_label("Logit bias").fill("65: 101")
    page.get_by_label("Logit bias").blur()
    assert "from -100 to 100" in toast(page)
    assert page.get_by_label("Logit bias").input_value() == "65: -100, 66:.5"
    page.keyboard.press("Escape")
    send(page, "hi")
    expected = {
        "repetition_penalty": 1.25,
        "frequency_penalty": -1.5,
        "logit_bias": {"65": -100, "66": 0.5},
    }
    assert {name: sent[1][name] for name in names & {*sent[1]}} == expected
    button(page, "Settings").click()
    button(page, "Reset to defaults").click()
    page.keyboard.press("Escape")
    send(page, "hi")
    assert not names & {*sent[2]}


def test_commands_are_offered_while_one_is_typed_and_an_unknown_one_is_a_passing_hint(page):
    box = page.get_by_role("textbox").last
    offered = page.get_by_role("option").locator("b")
    box.press_sequentially("/")
    assert [text.split()[0][1:] for text in offered.all_inner_texts()] == [
        word for word, command in COMMANDS.items() if command.only != "terminal"
    ]
    box.press("ArrowDown")
    box.press("ArrowUp")
    box.press("ArrowUp")
    assert page.locator("[aria-selected=true]").get_attribute("id") == "word-help"
    assert box.get_attribute("aria-activedescendant") == "word-help"
    box.press_sequentially("te")
    box.press("Enter")  # takes the word, its value is to come
    assert box.input_value() == "/temperature " and turns(page, "console").count() == 0
    assert offered.all_inner_texts() == ["/temperature [0 to 2]"]
    box.press_sequentially("1")
    box.press("Enter")
    assert texts(page, "console")[-1].endswith("temperature: 1")
    assert box.input_value() == "" and page.get_by_role("option").count() == 0
    box.fill("/")
    box.press("Escape")
    assert offered.count() == 0 and box.input_value() == "/"
    box.press_sequentially("he")
    page.locator("#word-help").click()
    assert "/clear" in texts(page, "console")[-1] and box.input_value() == ""
    send(page, "/temprature 0.5")
    assert "did you mean /temperature?" in page.locator("#toast.shown, #problem").inner_text()
    assert box.input_value() == "/temprature 0.5" and turns(page, "console").count() == 2
    box.fill("/help")
    assert page.locator("#toast.shown, #problem:not(:empty)").count() == 0


def test_a_path_or_a_line_behind_a_space_is_no_command(page):
    sent = asked(page)
    send(page, "/usr/bin is what?")
    send(page, " /help")
    assert [body["messages"][-1]["content"] for body in sent] == ["/usr/bin is what?", " /help"]


def test_the_settings_are_sent_kept_and_kept_in_range(page):
    sent = asked(page)
    button(page, "Settings").click()
    page.get_by_label("System prompt").fill("Be brief.")
    page.get_by_label("Temperature").fill("0")
    page.get_by_label("Top-k").fill("7")
    page.get_by_label("Max tokens").fill("33")
    page.get_by_label("Max tokens").blur()
    page.get_by_label("Top-k").fill("500")
    page.get_by_label("Top-k").blur()
    assert toast(page) == "Top-k must be between 0 and 200; 7 stays."
    page.reload()
    button(page, "Settings").click()
    labels = ("System prompt", "Temperature", "Top-k", "Max tokens")
    assert [page.get_by_label(each).input_value() for each in labels] == [
        "Be brief.",
        "0",
        "7",
        "33",
    ]
    page.keyboard.press("Escape")
    assert page.get_by_label("System prompt").is_hidden()
    send(page, "hi")
    assert sent[0]["messages"][0] == {"role": "system", "content": "Be brief."}
    assert (sent[0]["temperature"], sent[0]["top_k"], sent[0]["max_tokens"]) == (0, 7, 33)
    assert page.locator(".told").inner_text() == "Be brief."
    assert "Cut at Max tokens" in page.locator(".turn.assistant").inner_text()
    before = texts(page, "assistant")[0]
    button(page, "Continue").click()
    finished(page)
    assert sent[1]["continue_final_message"] and sent[1]["messages"][-1]["role"] == "assistant"
    assert texts(page, "assistant")[0].startswith(before) and turns(page, "user").count() == 1
    assert len(texts(page, "assistant")[0]) > len(before)
    assert "66 tokens" in page.locator(".turn.assistant .actions").inner_text()


def test_one_line_stands_where_the_model_began_to_read(page):
    send(page, "/topk 50")
    for i in range(4):
        send(page, f"{i} " + "x" * 150)
        assert page.locator(".cut").count() == (i > 0)
    below = page.locator(".cut ~ .turn.user .body")
    assert "was not read" in page.locator(".cut").inner_text()
    assert [text[0] for text in below.all_inner_texts()] == ["3"]


def test_what_is_too_long_is_told_before_it_is_sent_and_stays_in_the_box(page):
    sent, box = asked(page), page.get_by_role("textbox").last
    page.locator("#model").filter(has_text="context").wait_for()
    box.fill("😀" * 7999)
    assert problem(page) == ""  # counted as the server counts
    box.fill("x" * 8001)
    assert problem(page).startswith("This message has 8,001 characters, the server takes 8,000")
    page.keyboard.press("Enter")
    assert box.input_value() == "x" * 8001 and turns(page, "user").count() == 0
    send(page, "x" * 700)
    until(page, lambda: "it needs 704 tokens" in problem(page))
    assert "context is 512" in problem(page) and box.input_value() == "x" * 700
    assert turns(page, "user").count() == 0 and sent == []
    send(page, "short")
    assert problem(page) == "" and texts(page, "user") == ["short"]
    button(page, "Edit").click()
    page.get_by_label("Edit message").fill("y" * 700)
    button(page, "Send edited").click()
    until(page, lambda: "704 tokens" in page.locator(".edit .problem").inner_text())
    page.get_by_label("Edit message").fill("mended")
    button(page, "Send edited").click()
    until(page, lambda: texts(page, "user") == ["mended"])
    finished(page)
    assert len(sent) == 2
    send(page, "z" * 490)
    assert "the model's context is full" in page.locator(".turn.assistant").last.inner_text()
    assert button(page, "Continue").count() == 0


def test_a_message_that_was_refused_spoils_no_later_one_and_can_be_mended(page):
    page.route("**/v1/models", lambda route: route.abort())  # so it knows no limits
    page.reload()
    send(page, "x" * 9000)
    assert page.locator(".failure").inner_text() == (
        "Message 0 has 9000 characters, this server takes 8000: shorten it."
    )
    sent = asked(page)
    send(page, "short")
    assert [message["content"] for message in sent[0]["messages"]] == ["short"]
    assert "Rosa" in texts(page, "assistant")[1] and page.locator(".failure").count() == 0
    turn = page.locator(".turn.assistant").first
    assert "The model does not read this message" in turn.inner_text()
    turn.hover()
    assert button(turn, "Retry").is_visible()
    button(turn, "Edit").click()
    page.get_by_label("Edit message").fill("mended")
    button(page, "Send edited").click()
    until(page, lambda: texts(page, "user") == ["mended"])
    finished(page)
    assert "does not read" not in page.locator("#messages").inner_text()


@pytest.mark.parametrize(
    "reply",
    [
        {"json": {"detail": "Bad Gateway"}},
        {"json": {"error": "Bad Gateway"}},
        {"body": "null"},
        {"body": "<h1>Bad Gateway</h1>", "content_type": "text/html"},
    ],
)
def test_an_error_of_a_proxy_is_told_as_one_and_not_as_a_lost_connection(page, reply):
    page.route("**/v1/chat/completions", lambda route: route.fulfill(status=502, **reply))
    send(page, "hi")
    assert page.locator(".failure").inner_text() == (
        "The server, or a proxy in front of it, answered 502 and did not say why: "
        "Retry in a moment."
    )


def test_a_double_click_on_send_does_not_stop_the_reply(visit, slow_url):
    page = visit(slow_url)
    page.get_by_role("textbox").last.fill("hi")
    button(page, "Send").dblclick()
    until(page, lambda: texts(page, "assistant")[0].startswith("Rosa"))
    assert page.evaluate("document.activeElement.id") == "message"
    button(page, "Stop").click()
    assert "Stopped." in page.locator(".turn.assistant").inner_text()


def test_to_the_end_is_offered_where_there_is_one_to_go_to(page):
    send(page, "\n".join("line" for _ in range(60)))
    latest = button(page, "To the end")
    assert latest.is_hidden()
    page.locator("#messages").evaluate("node => node.scrollTop = 0")
    latest.click()
    until(page, latest.is_hidden)
    page.locator("#messages").evaluate("node => node.scrollTop = 0")
    until(page, latest.is_visible)
    button(page, "New chat").click()
    assert latest.is_hidden()


def test_a_message_waits_for_a_model_that_loads(visit):
    running, compile_now = serve("at last"), threading.Event()
    warm_up = running.service.scheduler.engine.warm_up
    running.service.scheduler.engine.warm_up = lambda: compile_now.wait(60) and warm_up()
    with running:
        page = visit(running.url)
        page.locator("#banner.calm", has_text="The model is loading").wait_for()
        assert page.locator("#banner progress").is_visible()
        send(page, "first", wait=False)
        page.get_by_text("Waiting for the model").wait_for()
        page.wait_for_timeout(800)
        assert page.locator(".failure").count() == 0
        compile_now.set()
        finished(page)
        assert texts(page, "assistant") == ["at last"]
        page.locator("#banner").wait_for(state="hidden")
        page.close()


def test_a_server_that_wants_a_key_gets_it_from_the_settings(visit, talker):
    with Front(talker, lambda app: Guard(app, bearer_keys(["sesame"]))) as front:
        page = visit(front.url)
        send(page, "hi")
        assert "Enter the key under Settings" in page.locator(".failure").inner_text()
        button(page, "Settings").click()
        page.get_by_label("API key").fill("sesame")
        page.get_by_label("API key").blur()
        button(page, "Retry").click()
        finished(page)
        assert texts(page, "assistant")[0].startswith("Rosa")
        page.close()


def test_a_restart_in_mid_stream_is_told_and_the_chat_goes_on(visit, talker, monkeypatch):
    monkeypatch.setattr(Slow, "pause_s", 0.5)
    with Front(talker) as front:
        page = visit(front.url)
        send(page, "hi", wait=False)
        until(page, lambda: texts(page, "assistant")[0].startswith("Rosa"))
        front.force_exit = True
    monkeypatch.undo()
    page.locator(".failure").wait_for(timeout=15_000)
    assert "connection to the server was lost" in page.locator(".failure").inner_text()
    assert texts(page, "assistant")[0].startswith("Rosa")
    page.get_by_text("The server does not answer").wait_for(timeout=10_000)
    page.keyboard.press("Control+Shift+O")  # drawn now, with nobody to ask for icons
    open_chat(page, "hi")
    page.locator(".failure").wait_for()
    assert page.evaluate(ICONS) == []
    with serve("back again", port=front.port):
        page.locator("#banner").wait_for(state="hidden", timeout=30_000)
        assert toast(page) in ("Connected.", "The model is ready.")
        button(page, "Retry").click()
        finished(page)
        assert texts(page, "assistant") == ["back again"]
        page.close()
