"""What stands before the routes: body size, keys, rate, and the count of every answer."""

import hmac
import time
from collections.abc import Callable, Collection

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from nanochat_jax.serve.server.errors import ApiError
from nanochat_jax.serve.server.metrics import Counters

MAX_BODY = 2**20  # bytes; the longest allowed conversation is far below
OPEN_PATHS = frozenset({"/", "/health", "/logo.svg", "/favicon.ico"})
Check = Callable[[Scope], ApiError | None]


class BodyLimit:
    """Answers 413 to a body of more than `MAX_BODY` bytes, whether or not it says its length."""

    def __init__(self, app: ASGIApp):
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        size = 0

        # Raised where the application reads: it does so before a route begins, and turns this
        # exception into an answer. A body sent in chunks says no length beforehand.
        async def limited() -> Message:
            nonlocal size
            message = await receive()
            size += len(message.get("body", b""))
            if size > MAX_BODY:
                raise ApiError(413, f"the body is larger than {MAX_BODY} bytes", code="too_large")
            return message

        await self._app(scope, limited, send)


class HeadAsGet:
    """Answers HEAD as GET; whoever writes the answer (uvicorn) leaves the body of a HEAD out.

    Outermost: what it passes on is a copy, for the server goes on reading its own scope.
    """

    def __init__(self, app: ASGIApp):
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["method"] == "HEAD":
            scope = {**scope, "method": "GET"}
        await self._app(scope, receive, send)


class Guard:
    """Lets through what `check` finds nothing against."""

    def __init__(self, app: ASGIApp, check: Check):
        self._app, self._check = app, check

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        error = self._check(scope) if scope["type"] == "http" else None
        await (error.response(scope["path"]) if error else self._app)(scope, receive, send)


def bearer_keys(keys: Collection[str]) -> Check:
    """401 without one of `keys`; the page itself and `/health` stay open."""
    known = [key.encode() for key in keys]

    def check(scope: Scope) -> ApiError | None:
        given = _bearer(dict(scope["headers"]).get(b"authorization", b""))
        # Compared in constant time: how long a refusal takes must not tell how much was right.
        if any(hmac.compare_digest(given, key) for key in known):
            return None
        if scope["path"] in OPEN_PATHS or scope["path"].startswith("/web/"):
            return None
        message = "Incorrect API key: send `Authorization: Bearer <key>`"
        return ApiError(401, message, code="invalid_api_key")

    return check


def _bearer(header: bytes) -> bytes:
    """The key of an Authorization header; the scheme's case is free (RFC 9110, section 11.1)."""
    match header.strip().split(maxsplit=1):
        case scheme, key if scheme.lower() == b"bearer":
            return key
    return b""


def rate_limit(per_minute: int) -> Check:
    """429 to an address that posts more than `per_minute` requests a minute."""
    seen: dict[str, tuple[float, float]] = {}  # address -> requests it has left, when it last came

    def check(scope: Scope) -> ApiError | None:
        if scope["method"] != "POST":
            return None
        now, address = time.monotonic(), (scope.get("client") or ("",))[0]
        left, before = seen.get(address, (per_minute, now))
        # A bucket of tokens, refilled as time goes by: a burst passes, a stream of requests not.
        left = min(per_minute, left + (now - before) * per_minute / 60)
        if len(seen) > 10_000:  # a scan from many addresses must not fill the memory
            seen.clear()
        seen[address] = (left - 1 if left >= 1 else left, now)
        if left >= 1:
            return None
        return ApiError(429, "too many requests from this address", code="rate_limit_exceeded")

    return check


class CountRequests:
    """Counts every answer by path and status."""

    def __init__(self, app: ASGIApp, counters: Counters):
        self._app, self._counters = app, counters

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def counted(message: Message) -> None:
            if message["type"] == "http.response.start":
                # By route, not by address: what strangers type must not grow the metrics.
                path = scope["route"].path if "route" in scope else "other"
                self._counters.requests[path, message["status"]] += 1
            await send(message)

        await self._app(scope, receive, counted)
