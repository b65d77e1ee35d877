"""The OpenAPI document: FastAPI's, told what this server really answers."""

from collections.abc import Callable, Iterator

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from nanochat_jax.serve.server.middleware import OPEN_PATHS
from nanochat_jax.serve.server.responses import REASONS

ERROR_MEDIA = {"schema": {"$ref": "#/components/schemas/ErrorBody"}}
ERROR = {"application/json": ERROR_MEDIA}


def writer(app: FastAPI, keys: bool) -> Callable[[], dict]:
    """A function for `app.openapi`. With `keys` the document asks for a bearer key, too."""

    def document() -> dict:
        if app.openapi_schema is None:
            schema = get_openapi(title=app.title, version=app.version, routes=app.routes)
            _without_422(schema)
            _refusals_as_json(schema)
            if keys:
                _with_keys(schema)
            app.openapi_schema = schema
        return app.openapi_schema

    return document


def _operations(schema: dict) -> Iterator[tuple[str, dict]]:
    for path, operations in schema["paths"].items():
        for operation in operations.values():
            yield path, operation


def _without_422(schema: dict) -> None:
    """The framework's own refusal is never sent: what is not valid is answered 400."""
    for _, operation in _operations(schema):
        operation["responses"].pop("422", None)
    for unused in ("HTTPValidationError", "ValidationError"):
        schema["components"]["schemas"].pop(unused, None)


def _refusals_as_json(schema: dict) -> None:
    """Refusals are JSON, also where the answer is a stream."""
    for _, operation in _operations(schema):
        for answer in operation["responses"].values():
            if any(media == ERROR_MEDIA for media in answer.get("content", {}).values()):
                answer["content"] = ERROR


def _with_keys(schema: dict) -> None:
    bearer = {"type": "http", "scheme": "bearer"}
    schema["components"]["securitySchemes"] = {"bearer": bearer}
    for path, operation in _operations(schema):
        if path not in OPEN_PATHS:
            operation["security"] = [{"bearer": []}]
            operation["responses"]["401"] = {"description": REASONS[401], "content": ERROR}
