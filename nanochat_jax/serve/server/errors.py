"""Refusals: each is OpenAI's error body with the right status."""

from collections.abc import Sequence

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException

from nanochat_jax.serve.engine.prompt import ContextFull
from nanochat_jax.serve.engine.requests import RequestRefused
from nanochat_jax.serve.server.openai import error_body
from nanochat_jax.serve.server.scheduler import QueueFull
from nanochat_jax.serve.server.service import EngineFailed


class ApiError(Exception):
    """A refusal with OpenAI's fields."""

    def __init__(
        self, status: int, message: str, param: str | None = None, code: str | None = None
    ):
        self.status, self.param, self.code = status, param, code
        super().__init__(message)

    @property
    def kind(self) -> str:
        """OpenAI's name for this class of errors."""
        if self.status == 429:
            return "rate_limit_error"
        return "server_error" if self.status >= 500 else "invalid_request_error"

    def response(self) -> JSONResponse:
        """The refusal on the wire."""
        headers = {"Retry-After": "1"} if self.status in (429, 503) else None
        return JSONResponse(
            error_body(str(self), self.kind, self.param, self.code), self.status, headers
        )


def add_handlers(app: FastAPI) -> None:
    """Turns every exception a route may raise into its refusal."""

    @app.exception_handler(ApiError)
    async def refused(_: Request, error: ApiError) -> Response:
        return error.response()

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> Response:
        param, message = first_problem(error.errors())
        return ApiError(400, message, param).response()

    @app.exception_handler(HTTPException)
    async def plain(_: Request, error: HTTPException) -> Response:
        answer = ApiError(error.status_code, str(error.detail)).response()
        answer.headers.update(error.headers or {})
        return answer

    @app.exception_handler(QueueFull)
    async def full(_: Request, error: QueueFull) -> Response:
        return ApiError(429, str(error), code="queue_full").response()

    @app.exception_handler(ContextFull)
    async def too_long(_: Request, error: ContextFull) -> Response:
        return ApiError(400, str(error), "messages", "context_length_exceeded").response()

    @app.exception_handler(RequestRefused)
    async def no_such_prompt(_: Request, error: RequestRefused) -> Response:
        return ApiError(400, str(error), "prompt").response()

    @app.exception_handler(EngineFailed)
    async def failed(_: Request, error: EngineFailed) -> Response:
        return ApiError(503, str(error), code="engine_failed").response()

    @app.exception_handler(Exception)
    async def unexpected(_: Request, error: Exception) -> Response:
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
