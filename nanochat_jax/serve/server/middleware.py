"""What stands before the routes: body size, guards, and the count of every answer."""

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from nanochat_jax.serve.server.errors import ApiError
from nanochat_jax.serve.server.guards import Check
from nanochat_jax.serve.server.metrics import Counters

MAX_BODY = 2**20  # bytes; the longest allowed conversation is far below


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


class CountRequests:
    """Counts every answer by path and status."""

    def __init__(self, app: ASGIApp, counters: Counters):
        self._app, self._counters = app, counters

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def counted(message: Message) -> None:
            if message["type"] == "http.response.start":
                # By route, not by address: what strangers type must not grow the metrics.
                path = scope["route"].path if "route" in scope else "other"
                self._counters.answered(path, message["status"])
            await send(message)

        await self._app(scope, receive, counted)
