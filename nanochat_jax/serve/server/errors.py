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


class ApiError(Exception):
    """A refusal with OpenAI's fields."""

    def __init__(
        self, status: int, message: str, param: str | None = None, code: str | None = None
    ):
        self.status, self.param, self.code = status, param, code
        super().__init__(message)

    @property
    def body(self) -> ErrorBody:
        """The error object that OpenAI's clients read."""
        kind = "server_error" if self.status >= 500 else "invalid_request_error"
        kind = "rate_limit_error" if self.status == 429 else kind
        # JSON may hold half a surrogate pair, UTF-8 may not: a message that quotes one must not
        # fail on its way out.
        message = str(self).encode("utf-8", "replace").decode()
        return ErrorBody(error=Error(message=message, type=kind, param=self.param, code=self.code))

    def response(self) -> JSONResponse:
        """The refusal on the wire."""
        # OpenAI's clients try again by themselves, and wait as long as this says.
        headers = {"Retry-After": "1"} if self.status in (429, 503) else None
        return JSONResponse(self.body.model_dump(exclude_unset=True), self.status, headers)


class EngineFailed(ApiError):
    """The engine's thread ended with an error; the log says which."""

    def __init__(self, message: str = "the engine has failed; the server's log says how"):
        super().__init__(503, message, code="engine_failed")


def add_handlers(app: FastAPI) -> None:
    """Turns every exception a route may raise into its refusal."""

    @app.exception_handler(ApiError)
    async def refused(_: Request, error: ApiError) -> Response:
        return error.response()

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> Response:
        param, message = first_problem(error.errors())
        body = ApiError(400, message, param).body
        if request.url.path == "/chat/completions":
            body.detail = body.error.message  # the original's page reads nothing else
        return JSONResponse(body.model_dump(exclude_unset=True), 400)

    @app.exception_handler(HTTPException)
    async def plain(_: Request, error: HTTPException) -> Response:
        answer = ApiError(error.status_code, str(error.detail)).response()
        answer.headers.update(error.headers or {})
        return answer

    async def from_engine(_: Request, error: Exception) -> Response:
        status, param, code = REFUSED[type(error)]
        return ApiError(status, str(error), param, code).response()

    for kind in REFUSED:
        app.add_exception_handler(kind, from_engine)

    @app.exception_handler(Exception)
    async def unexpected(_: Request, error: Exception) -> Response:
        # What failed may hold text of other people's chats: it goes to the log alone.
        return ApiError(500, "the server failed on this request; its log says how").response()


def first_problem(problems: Sequence[dict]) -> tuple[str | None, str]:
    """(parameter, message) of the first of pydantic's complaints, in one sentence."""
    problem = problems[0]
    if problem["type"] == "json_invalid":
        return None, f"the body is not valid JSON: {problem['ctx']['error']}"
    place = [str(part) for part in problem["loc"] if part not in ("body", "query", "path")]
    if not place:
        return None, "the body must be a JSON object, sent with Content-Type: application/json"
    message = problem["msg"].removeprefix("Value error, ")
    return place[0], f"{'.'.join(place)}: {message}"
