"""Nothing that anyone writes becomes an element, an attribute or a request of its own."""

import hashlib
import importlib.resources
import json
import re

import pytest

from tests.serve.page.conftest import EVIL
from tests.serve.page.driving import (
    button,
    chat_line,
    open_chat,
    send,
    take_file,
    texts,
    turns,
    until,
)

WEB = importlib.resources.files("nanochat_jax.serve.server") / "page"
ATTACKS = [
    EVIL,
    "<svg/onload=alert(1)>",
    "`<img src=x onerror=alert(1)>`",
    "**<iframe src=https://evil.example></iframe>**",
    "[x](javascript:alert(1)) [y](data:text/html,<script>alert(1)</script>)",
    '[x](https://a.example/"onmouseover="alert(1))',
    "![x](https://evil.example/p.png) ![y](javascript:alert(1)) ![z](data:image/svg+xml,<svg>)",
    "[x]\n\n[x]: javascript:alert(1)\n[y]: <data:text/html,x> 'onclick=alert(1)'",
    '<javascript:alert(1)> <https://a.example/?<script>> www.a.example/"onclick=alert(1)',
    "[x](java&#115;cript:alert(1)) [x](&#1;javascript:alert(1)) [x](JaVaScRiPt:alert(1))",
    "<div>\n\n<img src=https://evil.example/p.png>\n\n</div> <!-- <b> --> <![CDATA[<i>]]>",
    '```html onclick="alert(1)"\n<img src=x onerror=alert(1)>\n```',
    "https://a.example/<script>alert(1)</script>",
    "# <h1 onclick=alert(1)>\n> <b>\n\n| <i> | b |\n|---|---|\n| <u> | [z](vbscript:x) |",
    '```"><script>alert(1)</script>\n</code></pre><script>alert(1)</script>\n```',
    "1. <a href=javascript:alert(1)>x</a>\n   - <style>*{display:none}</style>",
    "&lt;script&gt; &#60;img src=x&#62; \ue000 \uf8ff \u202e",
]
ALLOWED = (
    "P UL OL LI STRONG EM DEL CODE PRE A BR HR H2 H3 H4 H5 H6 BLOCKQUOTE TABLE THEAD TBODY TR TH "
    "TD DIV SPAN FIGURE BUTTON svg use"
).split()
SHOW = """async (texts) => {
  const { showMarkdown } = await import('/web/markdown.js');
  const node = document.createElement('div');
  document.body.prepend(node);
  for (const text of texts) showMarkdown(node, text);
  return node.innerHTML;
}"""
LOOK = """() => [...document.body.firstChild.querySelectorAll('*')].map(
  (node) => [node.nodeName, [...node.attributes].map((a) => [a.name, a.value])])"""


def show(page, *texts):
    """The HTML that the texts, shown one after the other in the same place, have become."""
    return page.evaluate(SHOW, list(texts))


def own_files():
    """The files of the page that are ours."""
    return [entry for entry in WEB.iterdir() if entry.is_file()]


def test_no_line_of_the_page_can_write_html_or_run_text():
    for entry in own_files():
        found = re.search(
            r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function|srcdoc"
            r"|createContextualFragment|setHTML|DOMParser|\bon\w+=",
            entry.read_text(),
        )
        assert found is None, f"{entry.name}: {found}"


def test_no_file_of_the_page_names_another_server():
    for entry in own_files():
        elsewhere = re.findall(r"""["'(]\s*(?:https?:)?//[\w.]+""", entry.read_text())
        assert [url for url in elsewhere if "www.w3.org" not in url] == [], entry.name


def test_the_files_of_others_are_whole_and_unchanged():
    vendor = WEB / "vendor"
    listed = dict(
        reversed(line.split("  ")) for line in (vendor / "SHA256SUMS").read_text().splitlines()
    )
    found = {
        f"{folder.name}/{file.name}": hashlib.sha256(file.read_bytes()).hexdigest()
        for folder in vendor.iterdir()
        if folder.is_dir()
        for file in folder.iterdir()
    }
    assert found == listed
    assert {name for name in found if "LICENSE" in name} == {
        f"{folder.name}/LICENSE" for folder in vendor.iterdir() if folder.is_dir()
    }


@pytest.mark.slow
def test_markdown_makes_only_harmless_elements(page):
    for attack in ATTACKS:
        show(page, attack)
        for name, attributes in page.evaluate(LOOK):
            assert name in ALLOWED, attack
            for key, value in attributes:
                assert not key.startswith("on") and key != "style", attack
                fine = ("https://", "http://", "mailto:", "#icon-")
                assert key not in ("href", "src") or value.startswith(fine), attack


@pytest.mark.slow
def test_a_prompt_and_a_reply_are_shown_as_they_are(page):
    send(page, EVIL)
    assert page.locator("#messages img, #messages script, #messages a").count() == 0
    assert texts(page, "user") == [EVIL]
    assert "onerror=alert(1)" in texts(page, "assistant")[0]
    assert page.locator("h1").inner_text() == EVIL[:60]
    button(page, "Tokens").click()
    button(page, "Regenerate").click()
    page.locator(".token").nth(60).hover()
    assert page.locator("#messages img, #messages script, #card img").count() == 0


@pytest.mark.slow
def test_titles_imports_and_the_storage_are_no_way_in(page):
    line = chat_line((EVIL, EVIL), title=f'"><img src=x onerror=alert(1)>{EVIL}')
    take_file(page, line)
    until(page, lambda: turns(page, "user").count() == 1)
    stored = {
        "title": "<script>alert(1)</script>",
        "system": EVIL,
        "changed": 1,
        "messages": [
            {"role": "user onclick=alert(1)", "content": "no such role"},
            {"role": "user", "content": EVIL},
            {
                "role": "assistant",
                "parts": [
                    {"type": "python", "text": EVIL},
                    {"type": "python_output", "text": EVIL},
                    {"type": "<img>", "text": EVIL},
                ],
                "failure": EVIL,
                "finish": "<b>",
                "count": "<img src=x onerror=alert(1)>",
                "tokens": [[EVIL, 0.5, 0, [[EVIL, 0.5]]]],
            },
        ],
    }
    keep = "([key, value]) => localStorage.setItem(key, value)"
    page.evaluate(keep, ["nanochat.chat.x", json.dumps(stored)])
    page.evaluate(keep, ["nanochat.settings", json.dumps({"theme": '"><img>', "api_key": [EVIL]})])
    page.reload()
    open_chat(page, "<script>alert(1)</script>")
    button(page, "Tokens").click()
    page.locator(".token").first.hover()
    assert page.locator("#card").is_visible()
    button(page, "Tokens").click()
    assert (
        page.locator("#messages img, #chats img, #card img, body script, #messages a").count() == 0
    )
    assert texts(page, "user") == [EVIL]
    assert page.locator(".tool").inner_text() == f"calculator {EVIL} = {EVIL}"


@pytest.mark.slow
def test_an_inline_script_would_not_run_even_if_it_got_in(page):
    page.evaluate(
        """() => { const node = document.createElement('script');
        node.append('window.broken = true'); document.body.append(node);
        const image = document.createElement('div');
        document.body.append(image);
        try { image.innerHTML = '<img src="data:," onerror="window.broken = true">' }
        catch (error) { window.refused = error.name } }"""
    )
    page.wait_for_timeout(200)
    assert page.evaluate("[window.broken, window.refused]") == [None, "TypeError"]


@pytest.mark.slow
def test_no_reply_makes_markdown_slow_or_deep(page):
    spent = """async (text) => { const { showMarkdown } = await import('/web/markdown.js');
      const began = performance.now();
      showMarkdown(document.createElement('div'), text);
      return performance.now() - began }"""
    for unit in ("`*[", "**a", "``` ", "_a ", "[a](", "a|", "- > ", "> ", "https://", "`a``b"):
        assert page.evaluate(spent, unit * (20_000 // len(unit))) < 1000, unit


def test_a_key_stays_in_its_tab(visit, url):
    page = visit(url)
    old = json.dumps({"theme": "dark", "api_key": "old secret"})
    page.evaluate("text => localStorage.setItem('nanochat.settings', text)", old)
    page.reload()
    stored = "Object.values(localStorage).join()"
    button(page, "Settings").click()
    assert page.get_by_label("API key").input_value() == "old secret"
    assert "old secret" not in page.evaluate(stored) and "dark" in page.evaluate(stored)
    page.get_by_label("API key").fill("new secret")
    page.get_by_label("API key").blur()
    assert "secret" not in page.evaluate(stored)
    page.reload()
    assert page.locator("#api_key").input_value() == "new secret"
    assert visit(url, same=page).locator("#api_key").input_value() == ""


def test_no_text_is_ever_run_as_a_script(page):
    # Later, for what the driver itself evaluates the browser lets through.
    attempts = """() => new Promise((done) => setTimeout(() => done([() => eval("1"),
      () => Function("return 1")(), () => {
        const script = document.createElement("script");
        script.append("window.ran = 1");
        document.body.append(script);
        return window.ran ?? "refused";
      }].map((attempt) => { try { return attempt() } catch (error) { return error.name } }))))"""
    assert page.evaluate(attempts) == ["EvalError", "EvalError", "refused"]
