"""A key goes where it was made for, and nowhere in the clear."""

import logging

import pytest

from nanochat_jax.identity.endpoint_key import key_for

KEYS = {"OPENAI_API_KEY": " openai\n", "OTHER": "other", "EMPTY": " "}


@pytest.mark.parametrize(
    "url",
    ["https://api.openai.com/v1", "https://eu.API.openai.com./v1", "http://127.0.0.1:8000/v1",
     "http://localhost:1", "http://[::1]:8000/v1", " https://127.1.2.3"],
)  # fmt: skip
def test_the_usual_key_goes_to_openai_and_to_this_machine(url):
    assert key_for(url, environ=KEYS) == "openai"
    assert key_for(url, environ={}) is None


@pytest.mark.parametrize(
    "url",
    ["https://api.example.org/v1", "http://192.168.0.2:8000/v1", "https://openai.com.evil.example",
     "https://notopenai.com", "https://api.openai.com@evil.example/v1", "http://0x7f.1/v1",
     "https://evil.example/?api.openai.com", "http://localhost.evil.example"],
)  # fmt: skip
def test_the_usual_key_goes_to_nobody_else(url, caplog):
    with caplog.at_level(logging.INFO):
        assert key_for(url, environ=KEYS) is None
    assert "--key-variable OPENAI_API_KEY" in caplog.text


def test_another_server_gets_what_is_named_for_it():
    assert key_for("https://api.example.org/v1", "OTHER", KEYS) == "other"
    assert key_for("https://api.example.org/v1", "OPENAI_API_KEY", KEYS) == "openai"
    assert key_for("http://127.0.0.1:8000", "OTHER", KEYS) == "other"
    for missing in ("EMPTY", "NONE"):
        with pytest.raises(ValueError, match=f"{missing}, which is not set"):
            key_for("https://api.example.org/v1", missing, KEYS)


@pytest.mark.parametrize(
    ("url", "variable"),
    [("http://api.openai.com/v1", ""), ("http://10.0.0.5:8000/v1", "OTHER"),
     ("http://api.example.org", "OPENAI_API_KEY")],
)  # fmt: skip
def test_no_key_leaves_this_machine_unencrypted(url, variable):
    with pytest.raises(ValueError, match="unencrypted.*https"):
        key_for(url, variable, KEYS)
