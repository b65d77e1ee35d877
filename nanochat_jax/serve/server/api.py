"""The HTTP server: OpenAI's API, the original's own, and the chat page, in one application."""

import contextlib
import importlib.resources
from collections.abc import AsyncIterator, Sequence

from fastapi import FastAPI
from fastapi.middleware.cors import CORSMiddleware
from fastapi.responses import JSONResponse, PlainTextResponse, Response

from nanochat_jax.serve.server import (
    chat_api,
    completions_api,
    document,
    errors,
    middleware,
    old_api,
)
from nanochat_jax.serve.server.answers import check_model, check_tokens
from nanochat_jax.serve.server.errors import ApiError
from nanochat_jax.serve.server.responses import (
    Health,
    ModelCard,
    ModelList,
    Stats,
    Text,
    TokenizerInfo,
    Tokens,
    refusals,
)
from nanochat_jax.serve.server.schemas import DetokenizeAsk, TokenizeAsk
from nanochat_jax.serve.server.service import Service
from nanochat_jax.tokenizer.chat_format import ASSISTANT_END

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
PROMETHEUS = "text/plain; version=0.0.4"  # of the text format
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
        if not service.scheduler.closing:
            service.scheduler.close(drain_s)

    app = FastAPI(title="nanochat", version="1", lifespan=lifespan, docs_url=None, redoc_url=None)
    errors.add_handlers(app)
    for module in (chat_api, completions_api, old_api):
        module.add_routes(app, service)
    _add_model_routes(app, service)
    _add_tokenizer_routes(app, service)
    _add_watch_routes(app, service)
    _add_page(app)
    app.openapi = document.writer(app, keys=bool(api_keys))
    # The one added last sees a request first.
    app.add_middleware(middleware.BodyLimit)
    if rate_limit:
        app.add_middleware(middleware.RateLimit, per_minute=rate_limit)
    if api_keys:
        app.add_middleware(middleware.BearerKeys, keys=frozenset(api_keys))
    if cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=list(cors_origins),
            allow_methods=["GET", "POST"],
            allow_headers=["*"],
        )
    app.add_middleware(middleware.CountRequests, counters=service.counters)
    return app


def _add_model_routes(app: FastAPI, service: Service) -> None:
    card = lambda: {
        "id": service.model_id,
        "object": "model",
        "created": int(service.counters.started),
        "owned_by": "nanochat_jax",
        "max_model_len": service.context,
    }

    @app.get("/v1/models", response_model=ModelList)
    async def list_models() -> dict:
        return {"object": "list", "data": [card()]}

    @app.get("/v1/models/{name}", response_model=ModelCard, responses=refusals(404))
    async def show_model(name: str) -> dict:
        check_model(service, name)
        return card()


def _add_tokenizer_routes(app: FastAPI, service: Service) -> None:
    tokenizer = service.tokenizer

    @app.post("/tokenize", response_model=Tokens, responses=refusals(400, 413, 429))
    def tokenize(ask: TokenizeAsk) -> dict:
        if ask.messages is not None:
            messages = [message.message() for message in ask.messages]
            tokens = service.chat_prompt(messages, 0).tokens
        elif ask.prompt in tokenizer.get_special_tokens():
            tokens = [tokenizer.encode_special(ask.prompt)]
        else:
            bos = tokenizer.get_bos_token_id() if ask.add_special_tokens else None
            tokens = tokenizer.encode(ask.prompt, prepend=bos)
        return {"tokens": tokens, "count": len(tokens), "max_model_len": service.context}

    @app.post("/detokenize", response_model=Text, responses=refusals(400, 413, 429))
    def detokenize(ask: DetokenizeAsk) -> dict:
        check_tokens(service, ask.tokens, "tokens")
        return {"prompt": tokenizer.decode(ask.tokens)}

    @app.get("/tokenizer_info", response_model=TokenizerInfo)
    async def tokenizer_info() -> dict:
        return {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "vocab_size": tokenizer.get_vocab_size(),
            "bos_token": tokenizer.id_to_token(tokenizer.get_bos_token_id()),
            "eos_token": ASSISTANT_END,
            "special_tokens": sorted(tokenizer.get_special_tokens()),
            "model_max_length": service.context,
            "hash": tokenizer.hash,
        }


def _add_watch_routes(app: FastAPI, service: Service) -> None:
    @app.get("/health", response_model=Health, responses={503: {"model": Health}})
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

    @app.get("/stats", response_model=Stats)
    async def stats() -> dict:
        return service.stats()

    @app.get("/metrics", response_class=PlainTextResponse)
    async def metrics() -> Response:
        return PlainTextResponse(service.metrics(), media_type=PROMETHEUS)


def _add_page(app: FastAPI) -> None:
    """The page's files, read once: no path from outside ever reaches the disk."""
    folder = importlib.resources.files("nanochat_jax.serve.server") / "page"
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
