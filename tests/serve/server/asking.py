"""What the tests of the API ask, and how they read the answers."""

import time

ASK = {"model": "nanochat-test", "messages": [{"role": "user", "content": "hi"}], "seed": 1}
SAID = "Grüße 🙂: <<72+66>> makes 138."


def post(http, body, path="/v1/chat/completions"):
    return http.post(path, json=body)


def refused(answer, status, param=None, code=None):
    error = answer.json()["error"]
    assert answer.status_code == status, answer.text
    assert set(error) == {"message", "type", "param", "code"}
    assert (error["param"], error["code"]) == (param, code), error
    return error["message"]


def assert_idle(http, within_s: float = 5.0):
    deadline = time.monotonic() + within_s
    busy = lambda: [http.get("/stats").json()[key] for key in ("busy_workers", "waiting")]
    while any(busy()) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert busy() == [0, 0]
