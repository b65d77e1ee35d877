"""Refusals: each is OpenAI's error body with the right status."""

from collections.abc import Sequence

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException

from nanochat_jax.serve.engine.prompt import ContextFull
from nanochat_jax.serve.engine.requests import RequestRefused
from nanochat_jax.serve.server.responses import Error, ErrorBody
from nanochat_jax.serve.server.scheduler import QueueFull

# (status, parameter, code) of what the engine's side raises; its message is the client's, too.
REFUSED = {
    QueueFull: (429, None, "queue_full"),
    ContextFull: (400, "messages", "context_length_exceeded"),
    RequestRefused: (400, "prompt", None),
}
# OpenAI's clients try again by themselves, and wait as long as this says.
HEADERS = {
    401: {"WWW-Authenticate": "Bearer"}, 429: {"Retry-After": "1"}, 503: {"Retry-After": "1"}
}  # fmt: skip


class ApiError(HTTPException):
    """A refusal with OpenAI's fields."""

    def __init__(
        self, status: int, message: str, param: str | None = None, code: str | None = None
    ):
        super().__init__(status, message, HEADERS.get(status))
        self.param, self.code = param, code

    @property
    def body(self) -> ErrorBody:
        """The error object that OpenAI's clients read."""
        kind = "server_error" if self.status_code >= 500 else "invalid_request_error"
        kind = "rate_limit_error" if self.status_code == 429 else kind
        # JSON may hold half a surrogate pair, UTF-8 may not: a message that quotes one must not
        # fail on its way out.
        message = self.detail.encode("utf-8", "replace").decode()
        return ErrorBody(error=Error(message=message, type=kind, param=self.param, code=self.code))

    def response(self, path: str) -> JSONResponse:
        """The refusal on the wire, of a request to `path`."""
        body = self.body
        if path == "/chat/completions":  # the original's page reads `detail` and nothing else
            body.detail = body.error.message
        return JSONResponse(body.model_dump(exclude_unset=True), self.status_code, self.headers)


class EngineFailed(ApiError):
    """The engine's thread ended with an error; the log says which."""

    def __init__(self, message: str = "the engine has failed; the server's log says how"):
        super().__init__(503, message, code="engine_failed")


def add_handlers(app: FastAPI) -> None:
    """Turns every exception a route may raise into its refusal."""

    async def refuse(request: Request, error: Exception) -> Response:
        return _refusal(error).response(request.url.path)

    for kind in (HTTPException, RequestValidationError, *REFUSED, Exception):
        app.add_exception_handler(kind, refuse)


def _refusal(error: Exception) -> ApiError:
    match error:
        case ApiError():
            return error
        case HTTPException():
            refusal = ApiError(error.status_code, str(error.detail))
            refusal.headers = {**(refusal.headers or {}), **(error.headers or {})}
            return refusal
        case RequestValidationError():
            param, message = first_problem(error.errors())
            return ApiError(400, message, param)
        case _ if type(error) in REFUSED:
            status, param, code = REFUSED[type(error)]
            return ApiError(status, str(error), param, code)
    # What failed may hold text of other people's chats: it goes to the log alone.
    return ApiError(500, "the server failed on this request; its log says how")


def first_problem(problems: Sequence[dict]) -> tuple[str | None, str]:
    """(parameter, message) of the first of pydantic's complaints, in one sentence."""
    problem = problems[0]
    message = problem["msg"].removeprefix("Value error, ")
    place = [str(part) for part in problem["loc"] if part not in ("body", "query", "path")]
    if problem["type"] == "json_invalid":
        return None, f"the body is not valid JSON: {problem['ctx']['error']}"
    if not place and problem["type"] == "value_error":  # of several fields together
        return None, message
    if not place:
        return None, "the body must be a JSON object, sent with Content-Type: application/json"
    return place[0], f"{'.'.join(place)}: {message}"
