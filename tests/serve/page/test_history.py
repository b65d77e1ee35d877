"""What the browser keeps: chats, several tabs, files in and out, a storage full or broken."""

import json

import pytest

from nanochat_jax.data import importer
from tests.serve.page.driving import (
    asked,
    button,
    chat_line,
    chats,
    open_chat,
    press_of,
    problem,
    send,
    take_file,
    texts,
    toast,
    turns,
    until,
)

pytestmark = pytest.mark.slow


def test_a_chat_has_an_address_and_a_draft_of_its_own(page, visit, url):
    send(page, "remember me")
    page.get_by_role("textbox").last.fill("half a thou")
    page.reload()
    assert texts(page, "user") == ["remember me"] and "Rosa" in texts(page, "assistant")[0]
    assert page.get_by_role("textbox").last.input_value() == "half a thou"
    box = page.get_by_role("textbox").last
    button(page, "New chat").click()
    assert box.input_value() == "" and page.url == url + "/"
    box.fill("for a new one")
    open_chat(page, "remember me")
    assert box.input_value() == "half a thou" and "#/chat/" in page.url
    page.go_back()
    assert turns(page, "user").count() == 0 and box.input_value() == "for a new one"
    page.reload()
    assert turns(page, "user").count() == 0 and box.input_value() == "for a new one"
    page.go_forward()
    assert texts(page, "user") == ["remember me"]
    other = visit(url, same=page)
    assert turns(other, "user").count() == 0 and chats(other) == ["remember me"]
    other.goto(page.url)
    assert texts(other, "user") == ["remember me"]
    send(other, "from the other tab")
    until(page, lambda: turns(page, "user").count() == 2)
    other.goto(url + "/#/chat/nowhere")
    assert "not in this browser" in toast(other) and other.url == url + "/"
    assert turns(other, "user").count() == 0


def test_two_tabs_with_two_chats_do_not_mix(page, visit, url):
    send(page, "one")
    other = visit(url, same=page)
    send(other, "two")
    page.reload()
    other.reload()
    assert texts(page, "user") == ["one"] and texts(other, "user") == ["two"]
    assert chats(page) == ["two", "one"]


def test_a_tab_does_not_write_into_a_chat_that_another_is_answering(visit, slow_url):
    page = visit(slow_url)
    send(page, "one", wait=False)
    until(page, lambda: texts(page, "assistant")[0].startswith("Rosa"))
    other = visit(slow_url, same=page)
    open_chat(other, "one")
    assert "Coming in another tab" in other.locator(".turn.assistant").inner_text()
    send(other, "two")
    assert "coming in another tab" in problem(other) and texts(other, "user") == ["one"]
    assert other.get_by_role("textbox").last.input_value() == "two"
    button(page, "Stop").click()
    until(other, lambda: "Stopped." in other.locator(".turn.assistant").inner_text())
    other.keyboard.press("Enter")
    until(page, lambda: texts(page, "user") == ["one", "two"])
    button(other, "Stop").click()


def test_a_tab_that_died_in_mid_reply_blocks_nothing(page):
    send(page, "hi")
    stale = """() => { const ours = (key) => key.startsWith('nanochat.chat.');
      const key = Object.keys(localStorage).find(ours);
      const chat = JSON.parse(localStorage[key]);
      delete chat.messages[1].finish;
      localStorage[key] = JSON.stringify({ ...chat, live: Date.now() }) }"""
    page.evaluate(stale)
    page.reload()
    reply = page.locator(".turn.assistant")
    assert "Coming in another tab" in reply.inner_text()
    until(page, lambda: "Cut short" in reply.inner_text())
    send(page, "on we go")
    assert turns(page, "assistant").count() == 2


def test_a_name_given_in_one_tab_while_another_writes_the_chat_stays(visit, slow_url):
    page = visit(slow_url)
    send(page, "old name", wait=False)
    other = visit(slow_url, same=page)
    press_of(other, "old name", "Rename")
    other.get_by_label("New name").fill("new name")
    other.keyboard.press("Enter")
    until(page, lambda: chats(page) == ["new name"])
    page.wait_for_timeout(1500)
    button(page, "Stop").click()
    assert chats(page) == chats(other) == ["new name"]


def test_a_reply_goes_on_while_another_chat_is_shown(visit, slow_url):
    page = visit(slow_url)
    send(page, "long one", wait=False)
    button(page, "New chat").click()
    assert button(page, "Send").is_visible()
    send(page, "other", wait=False)
    assert page.locator("#chats .busy").count() == 2
    page.locator("#chats .open").filter(has_text="long one").click()
    until(page, lambda: len(texts(page, "assistant")[0]) > 8)
    button(page, "Stop").click()
    page.locator("#chats .open").filter(has_text="other").click()
    button(page, "Stop").click()
    assert texts(page, "user") == ["other"] and texts(page, "assistant")[0].startswith("Rosa")


def test_a_chat_deleted_in_mid_reply_stays_deleted(visit, slow_url):
    page = visit(slow_url)
    send(page, "gone soon", wait=False)
    until(page, lambda: texts(page, "assistant")[0].startswith("Rosa"))
    press_of(page, "gone soon", "Delete")
    page.wait_for_timeout(1500)
    assert chats(page) == [] and page.evaluate("Object.keys(localStorage)") == []


def test_leaving_the_page_in_mid_reply_keeps_what_came_and_says_so(visit, slow_url):
    page = visit(slow_url)
    send(page, "hi", wait=False)
    until(page, lambda: len(texts(page, "assistant")[0]) > 8)
    page.reload()
    assert len(texts(page, "assistant")[0]) > 8
    assert "Cut short" in page.locator(".turn.assistant").inner_text()
    assert button(page, "Regenerate").is_visible()


def test_chats_are_renamed_deleted_and_brought_back(page):
    take_file(page, chat_line(("newer", "b"), changed="2040-01-01"))
    until(page, lambda: chats(page) == ["newer"])
    button(page, "New chat").click()
    send(page, "old name")
    focus = lambda: page.evaluate("document.activeElement.textContent")
    press_of(page, "old name", "Rename")
    page.get_by_label("New name").fill("new name")
    page.keyboard.press("Enter")
    assert chats(page) == ["newer", "new name"] and page.locator("h1").inner_text() == "new name"
    assert focus() == "new name"
    press_of(page, "new name", "Rename")
    page.get_by_label("New name").fill("never")
    page.keyboard.press("Escape")
    assert chats(page) == ["newer", "new name"] and focus() == "new name"
    page.locator("#chats li").filter(has_text="newer").hover()
    button(page, "Delete newer").dblclick()
    assert chats(page) == ["new name"]
    button(page, "Undo").click()
    assert chats(page) == ["newer", "new name"] and focus() == "newer"
    page.wait_for_timeout(400)  # so long a second click is part of a double click
    press_of(page, "new name", "Delete")
    assert chats(page) == ["newer"] and turns(page, "user").count() == 0
    button(page, "Undo").click()
    assert texts(page, "user") == ["old name"] and chats(page) == ["newer", "new name"]
    button(page, "Delete all").click()
    assert chats(page) == [] and turns(page, "user").count() == 0
    button(page, "Undo").click()
    assert texts(page, "user") == ["old name"] and chats(page) == ["newer", "new name"]
    page.reload()
    assert texts(page, "user") == ["old name"]


def test_chats_stand_by_day_and_are_found_by_their_words(page):
    lines = [
        chat_line(("Tell of rivers", "The Oder is long."), changed="2026-01-05T10:00:00Z"),
        chat_line(("Tell of hills", "The Brocken is high."), changed="2026-01-04T10:00:00Z"),
        chat_line(("Just now", "Yes.")),
    ]
    take_file(page, "\n".join(lines))
    until(page, lambda: chats(page) == ["Just now", "Tell of rivers", "Tell of hills"])
    days = page.locator("#chats h2")
    assert days.all_inner_texts() == ["Today", "January 2026"]
    search = page.get_by_label("Search chats")
    search.fill("brocken tell")
    assert chats(page) == ["Tell of hills"]
    search.fill("nothing like it")
    assert chats(page) == [] and "No chat has these words" in page.locator("#chats").inner_text()
    search.press("Escape")
    assert len(chats(page)) == 3


def test_an_exported_chat_is_training_data_and_comes_back_by_import(page, tmp_path):
    send(page, "/system Be brief.")
    send(page, "How many?")
    press_of(page, "How many?", "Rename")
    page.get_by_label("New name").fill("Rosa's books")
    page.keyboard.press("Enter")
    with page.expect_download() as download:
        press_of(page, "Rosa's books", "Export")
    assert download.value.suggested_filename == "Rosa-s-books.jsonl"
    line = open(download.value.path()).read()
    messages = json.loads(line)["messages"]
    assert [message["role"] for message in messages] == ["system", "user", "assistant"]
    assert {"type": "python", "text": "72+66"} in messages[2]["content"]
    (tmp_path / "chats.jsonl").write_text(line)
    importer.add_conversations(tmp_path / "base", [tmp_path / "chats.jsonl"])
    before = texts(page, "assistant")
    press_of(page, "Rosa's books", "Delete")
    take_file(page, line)
    until(page, lambda: chats(page) == ["Rosa's books"])
    assert "Cut short" not in page.locator(".turn.assistant").inner_text()
    assert texts(page, "assistant") == before and page.locator(".told").inner_text() == "Be brief."


def test_all_chats_go_into_one_file_and_come_back_in_their_order_and_once(page):
    take_file(page, chat_line(("a", "b")) + "\n" + chat_line(("c", "d"), title="second"))
    until(page, lambda: toast(page) == "Took 2 chats from chats.jsonl.")
    with page.expect_download() as download:
        button(page, "Export all").click()
    text = open(download.value.path()).read()
    assert [json.loads(line)["title"] for line in text.splitlines()] == ["a", "second"]
    take_file(page, text)
    said = "Took 0 chats from chats.jsonl; 2 were here already."
    until(page, lambda: toast(page) == said)
    button(page, "Delete all").click()
    take_file(page, text)
    until(page, lambda: chats(page) == ["a", "second"])
    send(page, "and more")
    take_file(page, text)
    until(page, lambda: toast(page) == said)
    parts = {"role": "user", "content": [{"type": "text", "text": "in parts"}]}
    take_file(page, json.dumps([{"role": "developer", "content": "Be brief."}, parts]))
    until(page, lambda: texts(page, "user") == ["in parts"])
    assert page.locator(".told").inner_text() == "Be brief."


def test_a_file_that_holds_no_chats_is_refused_by_line_and_nothing_is_taken(page):
    take_file(page, chat_line(("a", "b")) + '\n{"messages": "none"}\n', "bad.jsonl")
    until(page, lambda: "bad.jsonl: line 2 is no conversation" in toast(page))
    take_file(page, "", "empty.jsonl")
    until(page, lambda: toast(page) == "empty.jsonl: the file is empty")
    assert chats(page) == []


def test_a_history_longer_than_the_server_takes_is_cut_at_its_oldest_turns_and_it_is_said(page):
    take_file(page, chat_line(*[(f"{i} " + "x" * 90, "y" * 900) for i in range(40)]))
    until(page, lambda: turns(page, "user").count() == 40)
    sent = asked(page)
    send(page, "and now?")
    assert page.locator(".failure").count() == 0
    contents = [message["content"] for message in sent[0]["messages"]]
    assert sum(map(len, contents)) <= 32_000 and contents[0].endswith("x") and len(contents) > 60
    assert page.locator(".cut").count() == 1


def test_a_full_storage_is_told_and_token_probabilities_make_room_first(page):
    button(page, "Tokens").click()
    send(page, "with tokens")
    button(page, "New chat").click()
    button(page, "Tokens").click()
    fill = """() => { for (let n = 2**21; n >= 1; n /= 2) for (;;)
      try { localStorage['filler' + localStorage.length] = 'x'.repeat(n) } catch { break } }"""
    page.evaluate(fill)
    send(page, "second")
    assert "token probabilities of older chats made room" in toast(page)
    page.evaluate(fill)
    send(page, "third")
    assert "storage is full" in page.locator("#banner").inner_text()
    assert texts(page, "user") == ["second", "third"] and turns(page, "assistant").count() == 2


def test_a_browser_that_refuses_to_store_still_chats(visit, url):
    denied = """const get = () => { throw new DOMException('no', 'SecurityError') };
      for (const name of ['localStorage', 'sessionStorage'])
        Object.defineProperty(window, name, { get })"""
    page = visit(url, before=denied)
    send(page, "hi")
    assert chats(page) == ["hi"]
    button(page, "New chat").click()
    open_chat(page, "hi")
    assert texts(page, "user") == ["hi"]


BROKEN = ["", "null", "3", "[]", "{}", '{"messages": 1}', '{"messages": [null, 5, {"role": "x"}]}']


def test_broken_and_old_entries_in_the_storage_do_not_break_the_page(page, url):
    entries = {f"nanochat.chat.{i}": text for i, text in enumerate(BROKEN)}
    odd = [
        {"role": "user", "content": {"a": 1}, "versions": [None, [7], "x", None]},
        {"role": "user", "content": "kept", "versions": [[], 3, None, [{"role": "x"}]]},
        {"role": "assistant", "parts": [{"type": "script", "text": "no"}, 7], "tokens": [1, ["a"]]},
    ]
    entries["nanochat.chat.odd"] = json.dumps({"title": 5, "changed": "x", "messages": odd})
    entries["nanochat.settings"] = '{"temperature": "hot", "top_k": 1e9, "theme": {}, "inspect": 1}'
    old = [
        *[{"role": "user", "content": "a"}, {"role": "assistant", "parts": []}] * 2,
        {"role": "user", "content": "b"},
        {"role": "assistant", "content": "yes", "finish": "stop", "dropped": 2, "seconds": 0.01},
    ]
    old[-1]["count"] = 10
    entries["nanochat.chat.old"] = json.dumps({"changed": 1, "messages": old})
    put = "e => { for (const k in e) localStorage[k] = e[k]; sessionStorage.clear() }"
    page.evaluate(put, entries)
    page.goto(page.url + "#/chat/odd")
    page.reload()
    assert texts(page, "user") == ["", "kept"] and page.locator(".versions").count() == 0
    sent = asked(page)
    send(page, "hi")
    assert (sent[0]["temperature"], sent[0]["top_k"]) == (0.8, 50)
    page.goto(url + "/#/chat/old")  # as an earlier version of the page kept it
    assert page.locator(".cut + .turn .body").inner_text() == "b"
    assert page.locator(".turn.assistant .actions").last.inner_text() == "10 tokens"
