"""The HTTP server: OpenAI's API, the original's own, and the chat page, in one application."""

import contextlib
import importlib.resources
from collections.abc import AsyncIterator, Callable, Sequence

from fastapi import FastAPI
from fastapi.middleware.cors import CORSMiddleware
from fastapi.openapi.utils import get_openapi
from fastapi.responses import JSONResponse, PlainTextResponse, Response

from nanochat_jax.serve import chat_api, completions_api, errors, guards, old_api
from nanochat_jax.serve.answers import check_model
from nanochat_jax.serve.errors import ApiError
from nanochat_jax.serve.schemas import DetokenizeAsk, TokenizeAsk
from nanochat_jax.serve.service import Service

MEDIA = {"html": "text/html", "js": "text/javascript", "css": "text/css", "svg": "image/svg+xml"}
PAGE_HEADERS = {
    # No inline script runs, whatever a reply holds. Browser drivers evaluate what they wait for, so
    # eval is left alone; the page has none.
    "Content-Security-Policy": "default-src 'self'; script-src 'self' 'unsafe-eval'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; object-src 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}
DRAIN_S = 7.0  # seconds that running replies get after SIGTERM


def create_app(
    service: Service,
    *,
    api_keys: Sequence[str] = (),
    cors_origins: Sequence[str] = (),
    rate_limit: int = 0,
    drain_s: float = DRAIN_S,
) -> FastAPI:
    """The application. It starts `service`'s engine with the server and ends it with it."""

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        service.scheduler.start()
        yield
        service.scheduler.close(drain_s)

    app = FastAPI(title="nanochat", version="1", lifespan=lifespan, docs_url=None, redoc_url=None)
    errors.add_handlers(app)
    for module in (chat_api, completions_api, old_api):
        module.add_routes(app, service)
    _add_model_routes(app, service)
    _add_tokenizer_routes(app, service)
    _add_watch_routes(app, service)
    _add_page(app)
    app.openapi = _openapi(app)
    # The one added last sees a request first.
    app.add_middleware(guards.BodyLimit)
    if rate_limit:
        app.add_middleware(guards.RateLimit, per_minute=rate_limit)
    if api_keys:
        app.add_middleware(guards.BearerKeys, keys=frozenset(api_keys))
    if cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=list(cors_origins),
            allow_methods=["GET", "POST"],
            allow_headers=["*"],
        )
    app.add_middleware(guards.CountRequests, counters=service.counters)
    return app


def _add_model_routes(app: FastAPI, service: Service) -> None:
    card = lambda: {
        "id": service.model_id,
        "object": "model",
        "created": int(service.counters.started),
        "owned_by": "nanochat_jax",
        "max_model_len": service.context,
    }

    @app.get("/v1/models")
    async def list_models() -> dict:
        return {"object": "list", "data": [card()]}

    @app.get("/v1/models/{name}")
    async def show_model(name: str) -> dict:
        check_model(service, name)
        return card()


def _add_tokenizer_routes(app: FastAPI, service: Service) -> None:
    tokenizer = service.tokenizer

    @app.post("/tokenize")
    async def tokenize(ask: TokenizeAsk) -> dict:
        if ask.messages is not None:
            messages = [message.message() for message in ask.messages]
            tokens = service.chat_prompt(messages, 0).tokens
        else:
            tokens = tokenizer.encode(ask.prompt)
        return {"tokens": tokens, "count": len(tokens), "max_model_len": service.context}

    @app.post("/detokenize")
    async def detokenize(ask: DetokenizeAsk) -> dict:
        unknown = [token for token in ask.tokens if token >= tokenizer.get_vocab_size()]
        if unknown:
            raise ApiError(400, f"{unknown[0]} is not a token id of this model", "tokens")
        return {"prompt": tokenizer.decode(ask.tokens)}

    @app.get("/tokenizer_info")
    async def tokenizer_info() -> dict:
        return {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "vocab_size": tokenizer.get_vocab_size(),
            "bos_token": "<|bos|>",
            "eos_token": "<|assistant_end|>",
            "special_tokens": sorted(tokenizer.get_special_tokens()),
            "model_max_length": service.context,
            "hash": tokenizer.hash,
        }


def _add_watch_routes(app: FastAPI, service: Service) -> None:
    @app.get("/health", responses={503: {"description": "loading, failed or shutting down"}})
    async def health() -> Response:
        engine, error = service.scheduler.engine, service.scheduler.error
        status = "failed" if error is not None else "ok" if service.ready else "loading"
        body = {
            "status": status,
            "ready": service.ready,
            "num_gpus": len(engine.devices),
            "available_workers": len(engine.slots) - engine.active,
        }
        return JSONResponse(body, 200 if status == "ok" else 503)

    @app.get("/stats")
    async def stats() -> dict:
        return service.stats()

    @app.get("/metrics", response_class=PlainTextResponse)
    async def metrics() -> str:
        return service.metrics()


def _add_page(app: FastAPI) -> None:
    """The page's files, read once: no path from outside ever reaches the disk."""
    folder = importlib.resources.files("nanochat_jax.serve") / "web"
    files = {entry.name: entry.read_bytes() for entry in folder.iterdir() if entry.is_file()}

    def page_file(name: str) -> Response:
        media = MEDIA.get(name.rsplit(".", 1)[-1])
        if name not in files or media is None:
            raise ApiError(404, f"there is no file {name!r} here")
        return Response(files[name], media_type=media, headers=PAGE_HEADERS)

    @app.get("/", include_in_schema=False)
    async def page() -> Response:
        return page_file("index.html")

    @app.get("/logo.svg", include_in_schema=False)
    async def logo() -> Response:
        return page_file("logo.svg")

    @app.get("/web/{name}", include_in_schema=False)
    async def asset(name: str) -> Response:
        return page_file(name)


def _openapi(app: FastAPI) -> Callable[[], dict]:
    """The OpenAPI document, in which a bad body is answered 400 as it really is, never 422."""

    def document() -> dict:
        if app.openapi_schema is None:
            schema = get_openapi(title=app.title, version=app.version, routes=app.routes)
            for operation in (op for path in schema["paths"].values() for op in path.values()):
                operation["responses"].pop("422", None)
                for status, reason in REFUSALS.items():
                    operation["responses"].setdefault(status, {"description": reason})
            app.openapi_schema = schema
        return app.openapi_schema

    return document


REFUSALS = {
    "400": "the request is not valid",
    "401": "a bearer key is needed",
    "404": "there is no such model",
    "413": "the body is too large",
    "429": "too many requests",
    "503": "not ready",
}
