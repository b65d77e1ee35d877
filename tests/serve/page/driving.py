"""What a person does on the page, and what they then see."""

import json
import time


def button(page, name):
    """The button of exactly this name."""
    return page.get_by_role("button", name=name, exact=True)


def send(page, text, wait=True):
    """Types into the message box and presses Enter, or by touch taps Send, where Enter makes a new
    line; `wait` until the reply is there."""
    page.get_by_role("textbox").last.fill(text)
    if page.evaluate("matchMedia('(pointer: coarse)').matches"):
        button(page, "Send").click()
    else:
        page.keyboard.press("Enter")
    if wait:
        finished(page)


def finished(page):
    """Waits until no reply is coming."""
    page.locator("#stop").wait_for(state="hidden", timeout=20_000)


def until(page, condition, within_s=10.0):
    """Waits until `condition()` holds; fails when it never does."""
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, "this never became true"
        page.wait_for_timeout(30)


def chats(page):
    """The names of the chats in the list."""
    return page.locator("#chats .open").all_inner_texts()


def open_chat(page, name):
    """Chooses the chat of this name in the list."""
    page.get_by_role("link", name=name, exact=True).click()


def press_of(page, name, what):
    """Presses a button of the chat of this name in the list."""
    page.locator("#chats li").filter(has_text=name).hover()
    button(page, f"{what} {name}").click()


def problem(page):
    """What is wrong with what stands in the message box."""
    return page.locator("#problem").inner_text()


def turns(page, role):
    """The bodies of all turns of `role`: user, assistant or console."""
    return page.locator(f".turn.{role} .body")


def texts(page, role):
    """What the turns of `role` say."""
    return turns(page, role).all_inner_texts()


def asked(page):
    """A list that fills with the bodies of the chat requests the page sends from now on."""
    bodies = []
    page.on("request", lambda r: "completions" in r.url and bodies.append(json.loads(r.post_data)))
    return bodies


def toast(page):
    """What the page last said in passing."""
    return page.locator("#toast.shown span").inner_text()


def take_file(page, text, name="chats.jsonl"):
    """Imports a file of this text."""
    file = {"name": name, "mimeType": "application/jsonl", "buffer": text.encode()}
    page.locator("#file").set_input_files(file)


def chat_line(*pairs, **more):
    """A line of nanochat's conversations: (question, answer) pairs."""
    messages = [
        {"role": role, "content": text}
        for pair in pairs
        for role, text in zip(("user", "assistant"), pair, strict=True)
    ]
    return json.dumps({"messages": messages, **more})
