"""What stands before the routes: body size, keys, rate, and the count of every answer."""

import hmac
import time
from collections.abc import Collection

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from nanochat_jax.serve.server.errors import ApiError
from nanochat_jax.serve.server.metrics import Counters

MAX_BODY = 2**20  # bytes; the longest allowed conversation is far below
OPEN_PATHS = frozenset({"/", "/health", "/logo.svg", "/favicon.ico"})


async def _refuse(error: ApiError, scope: Scope, receive: Receive, send: Send) -> None:
    await error.response()(scope, receive, send)


class BodyLimit:
    """Answers 413 to a body of more than `MAX_BODY` bytes, whether or not it says its length."""

    def __init__(self, app: ASGIApp):
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] in ("GET", "HEAD"):
            return await self._app(scope, receive, send)
        # Read whole before it is passed on: a body sent in chunks says no length beforehand, and a
        # 413 must come before the route has begun.
        body, more = b"", True
        while more:
            message = await receive()
            if message["type"] != "http.request":
                return None
            body += message.get("body", b"")
            more = message.get("more_body", False)
            if len(body) > MAX_BODY:
                error = ApiError(413, f"the body is larger than {MAX_BODY} bytes", code="too_large")
                return await _refuse(error, scope, receive, send)
        return await self._app(scope, _replay(body, receive), send)


def _replay(body: bytes, receive: Receive) -> Receive:
    """A `receive` that gives the body once and then whatever comes next (a disconnect)."""
    given = False

    async def again() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return again


class BearerKeys:
    """Answers 401 without one of `keys`; the page itself and `/health` stay open."""

    def __init__(self, app: ASGIApp, keys: Collection[str]):
        self._app, self._keys = app, [key.encode() for key in keys]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or self._open(scope["path"]) or self._known(scope):
            return await self._app(scope, receive, send)
        message = "Incorrect API key: send `Authorization: Bearer <key>`"
        error = ApiError(401, message, code="invalid_api_key")
        return await _refuse(error, scope, receive, send)

    def _open(self, path: str) -> bool:
        return path in OPEN_PATHS or path.startswith("/web/")

    def _known(self, scope: Scope) -> bool:
        given = dict(scope["headers"]).get(b"authorization", b"")
        # Compared in constant time: how long a refusal takes must not tell how much was right.
        return any(hmac.compare_digest(given, b"Bearer " + key) for key in self._keys)


class RateLimit:
    """Answers 429 to an address that posts more than `per_minute` requests a minute."""

    def __init__(self, app: ASGIApp, per_minute: int):
        self._app, self._rate = app, per_minute / 60
        self._most = float(per_minute)
        self._left: dict[str, tuple[float, float]] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["method"] == "POST" and not self._allow(scope):
            error = ApiError(429, "too many requests from this address", code="rate_limit_exceeded")
            return await _refuse(error, scope, receive, send)
        return await self._app(scope, receive, send)

    def _allow(self, scope: Scope) -> bool:
        now, address = time.monotonic(), (scope.get("client") or ("",))[0]
        left, seen = self._left.get(address, (self._most, now))
        # A bucket of tokens, refilled as time goes by: a burst passes, a stream of requests not.
        left = min(self._most, left + (now - seen) * self._rate)
        if len(self._left) > 10_000:  # a scan from many addresses must not fill the memory
            self._left.clear()
        self._left[address] = (left - 1 if left >= 1 else left, now)
        return left >= 1


class CountRequests:
    """Counts every answer by path and status."""

    def __init__(self, app: ASGIApp, counters: Counters):
        self._app, self._counters = app, counters

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._app(scope, receive, send)

        async def counted(message: Message) -> None:
            if message["type"] == "http.response.start":
                # By route, not by address: what strangers type must not grow the metrics.
                path = scope["route"].path if "route" in scope else "other"
                self._counters.requests[path, message["status"]] += 1
            await send(message)

        return await self._app(scope, receive, counted)
