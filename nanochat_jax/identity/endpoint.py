"""A client of OpenAI's chat completions: tries again while the server is busy, reads strictly."""

import json
import logging
import re
import threading
from typing import Any

import httpx
import pydantic

from nanochat_jax.identity import prompts
from nanochat_jax.identity.facts import Identity
from nanochat_jax.tasks.conversation import Messages, checked_messages

log = logging.getLogger(__name__)

TRIES = 5  # of one request, when the server is busy or the line is bad
# Of a server that has never answered: a wrong address is to be an error now, not in a minute.
TRIES_UNMET = 2
PAUSE_S, LONGEST_PAUSE_S = 1.0, 60.0
TIMEOUT_S = 180.0
BUSY = (408, 409, 425, 429, 500, 502, 503, 504, 529)
FENCE = re.compile(r"```(?:json)?\s*\n(.*?)```", re.DOTALL)
SERVE = "`python -m scripts.chat_web -i sft -p 8000` serves http://127.0.0.1:8000/v1"


class Endpoint:
    """One server and model, safe to use from several threads.

    Args:
        model: empty: the only one that the server has.
        max_tokens: of a reply; 0: what the server gives.

    Raises (all of its methods):
        ValueError: the server cannot be reached, refuses the key, or does not know the request.
    """

    def __init__(
        self, url: str, model: str = "", key: str | None = None, *,
        temperature: float = 1.0, max_tokens: int = 0, pause_s: float = PAUSE_S,
    ):  # fmt: skip
        self.url = re.sub(r"(/chat/completions)?/*$", "", url.strip())
        try:
            pydantic.TypeAdapter(pydantic.HttpUrl).validate_python(self.url)
        except pydantic.ValidationError:
            message = f"endpoint {url!r} is no address; expected http://HOST:PORT/v1"
            raise ValueError(message) from None
        headers = {"Authorization": f"Bearer {key.strip()}"} if key else {}
        self._http = httpx.Client(headers=headers, timeout=TIMEOUT_S, follow_redirects=True)
        limit = {"max_tokens": max_tokens} if max_tokens else {}
        self._settings = {"temperature": temperature, **limit}
        self._pause_s, self._schema, self._met = pause_s, True, False
        self._stop = threading.Event()
        self.model = model or self._only_model()

    def close(self) -> None:
        """Ends waiting calls with an error."""
        self._stop.set()
        self._http.close()

    def complete(self, text: str) -> tuple[str, bool]:
        """(reply, whether it was cut off) to one message, as JSON of a conversation if it can."""
        message, with_schema = {"role": "user", "content": text}, self._schema
        body = {"model": self.model, "messages": [message], **self._settings}
        more = {"response_format": prompts.RESPONSE_FORMAT} if with_schema else {}
        reply = self._send("POST", "/chat/completions", body | more)
        # Servers without response_format answer so, but not they alone: only if the same request
        # without it succeeds is it left out from now on.
        if with_schema and reply.status_code in (400, 422):
            again = self._send("POST", "/chat/completions", body)
            if again.is_success and self._schema:
                self._schema = False
                log.info("%s knows no response_format; the prompt alone asks for JSON", self.url)
            reply = again
        return _content(self._good(reply))

    def _only_model(self) -> str:
        reply = self._good(self._send("GET", "/models"))
        try:
            names = [model["id"] for model in reply.json()["data"]]
        except (ValueError, KeyError, TypeError):
            names = []
        if len(names) == 1:
            return names[0]
        listed = f"it has {', '.join(names[:8])}" if names else "it lists none"
        raise ValueError(f"{self.url}: name the model with --model; {listed}")

    def _send(self, method: str, path: str, body: Any = None) -> httpx.Response:
        """The server's answer, whatever its status, after as many tries as it takes."""
        for attempt in range(TRIES):
            try:
                reply = self._http.request(method, self.url + path, json=body)
                self._met = True
                if reply.status_code not in BUSY or attempt == TRIES - 1:
                    return reply
                reason, wish = f"status {reply.status_code}", reply.headers.get("Retry-After", "")
            except (httpx.TransportError, RuntimeError) as error:  # RuntimeError: closed meanwhile
                reason, wish = f"{type(error).__name__}: {error}", ""
            if attempt + 1 == (TRIES if self._met else TRIES_UNMET) or self._stop.is_set():
                break
            wished_s = float(wish) if re.fullmatch(r"\d+(\.\d+)?", wish) else 0.0
            log.debug("%s: %s; trying again", self.url, reason)
            self._stop.wait(min(max(self._pause_s * 2**attempt, wished_s), LONGEST_PAUSE_S))
        raise ValueError(
            f"cannot reach {self.url} ({reason}); check --endpoint, or start a server: {SERVE}"
        )

    def _good(self, reply: httpx.Response) -> httpx.Response:
        """The reply if it is one; else says what to do about it."""
        if reply.is_success:
            return reply
        advice = {
            401: "set OPENAI_API_KEY (or what --key-variable names) to a key of this server",
            403: "set OPENAI_API_KEY (or what --key-variable names) to a key for this model",
            404: "check --endpoint (it usually ends in /v1) and --model",
            429: "its limit is used up; continue later, what came stays",
        }.get(reply.status_code, "see its own log")
        body = " ".join(reply.text.split())[:300]
        raise ValueError(f"{reply.request.url} answered {reply.status_code} ({body}); {advice}")


def read_conversation(text: str, identity: Identity) -> Messages:
    """The conversation in a reply; raises ValueError with what is wrong with it."""
    messages = checked_messages(_json(text))
    if messages[0]["role"] != "user" or messages[-1]["role"] != "assistant":
        raise ValueError("expected the user first and the assistant last")
    kept = [{"role": m["role"], "content": m["content"]} for m in messages]
    for message in kept:
        if not isinstance(message["content"], str) or not message["content"].strip():
            raise ValueError("a message without text")
        message["content"] = message["content"].strip()
        message["content"].encode("utf-8")  # half a character, as "\ud83d", cannot be written
    # The writer may speak of itself instead; such a conversation would teach the wrong name.
    answers = " ".join(m["content"] for m in kept if m["role"] == "assistant")
    if identity.name.casefold() not in answers.casefold():
        raise ValueError(f"the assistant does not call itself {identity.name}")
    return kept


def _json(text: str) -> Any:
    """The JSON value of a reply, in a fence or among words too."""
    # Models wrap JSON in a fence or a sentence even where they are told not to.
    fenced = FENCE.search(text)
    outer = text[text.find("{") : text.rfind("}") + 1]
    for candidate in (text, fenced[1] if fenced else "", outer):
        try:
            return json.loads(candidate)
        except (ValueError, RecursionError):
            continue
    raise ValueError(f"no JSON: {' '.join(text.split())[:80]!r}")


def _content(reply: httpx.Response) -> tuple[str, bool]:
    try:
        choice = reply.json()["choices"][0]
        return str(choice["message"]["content"] or ""), choice.get("finish_reason") == "length"
    except (ValueError, LookupError, TypeError, AttributeError):
        return "", False
