"""The HTTP server: OpenAI's API, the original's own, and the chat page, in one application."""

import contextlib
import importlib.resources
from collections.abc import AsyncIterator, Sequence

from fastapi import APIRouter, Depends, FastAPI
from fastapi.middleware.cors import CORSMiddleware
from fastapi.responses import Response
from fastapi.security import HTTPBearer

from nanochat_jax.serve.server import chat, completions, errors, metrics, middleware, original
from nanochat_jax.serve.server.errors import ApiError
from nanochat_jax.serve.server.responses import (
    ANY_REFUSAL,
    DecodedText,
    Health,
    ModelCard,
    ModelList,
    Stats,
    TokenIds,
    TokenizerInfo,
    refusals,
)
from nanochat_jax.serve.server.scheduler import DRAIN_S
from nanochat_jax.serve.server.schemas import DetokenizeRequest, TokenizeRequest
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

    app = FastAPI(
        title="nanochat", version="1", lifespan=lifespan, docs_url=None, redoc_url=None,
        responses=ANY_REFUSAL,
    )  # fmt: skip
    errors.add_handlers(app)
    # For the document alone, it refuses nobody: BearerKeys stands before the page's files, too.
    bearer = Depends(HTTPBearer(scheme_name="bearer", auto_error=False))
    router = APIRouter(dependencies=[bearer], responses=refusals(401)) if api_keys else APIRouter()
    for module in (chat, completions, original):
        module.add_routes(router, service)
    _add_model_routes(router, service)
    _add_tokenizer_routes(router, service)
    _add_statistics_routes(router, service)
    app.include_router(router)
    _add_health(app, service)
    _add_page(app)
    _add_middleware(app, service, api_keys, cors_origins, rate_limit)
    return app


def _add_middleware(
    app: FastAPI,
    service: Service,
    api_keys: Sequence[str],
    cors_origins: Sequence[str],
    rate_limit: int,
) -> None:
    """Adds what stands before the routes; the one added last sees a request first."""
    app.add_middleware(middleware.BodyLimit)
    # Keys stand before the rate: who has none shall not use up the rate of an address that has.
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
    # Outermost, so that refusals of the others are counted, too.
    app.add_middleware(middleware.CountRequests, counters=service.counters)


def _add_model_routes(router: APIRouter, service: Service) -> None:
    created = int(service.counters.started)
    card = ModelCard(id=service.model_id, created=created, max_model_len=service.context)

    @router.get("/v1/models")
    async def list_models() -> ModelList:
        return ModelList(data=[card])

    @router.get("/v1/models/{name}", responses=refusals(404))
    async def show_model(name: str) -> ModelCard:
        service.check_model(name)
        return card


def _add_tokenizer_routes(router: APIRouter, service: Service) -> None:
    tokenizer = service.tokenizer

    # Not `async`: FastAPI runs it in a thread, for a megabyte of text takes its time.
    @router.post("/tokenize", responses=refusals(400, 413, 429))
    def tokenize(body: TokenizeRequest) -> TokenIds:
        if body.messages is not None:
            messages = [message.message() for message in body.messages]
            tokens = service.chat_prompt(messages, 0).tokens
        elif body.prompt in tokenizer.get_special_tokens():
            tokens = [tokenizer.encode_special(body.prompt)]
        else:
            bos = tokenizer.get_bos_token_id() if body.add_special_tokens else None
            tokens = tokenizer.encode(body.prompt, prepend=bos)
        return TokenIds(tokens=tokens, count=len(tokens), max_model_len=service.context)

    @router.post("/detokenize", responses=refusals(400, 413, 429))
    def detokenize(body: DetokenizeRequest) -> DecodedText:
        service.check_tokens(body.tokens, "tokens")
        return DecodedText(prompt=tokenizer.decode(body.tokens))

    @router.get("/tokenizer_info")
    async def tokenizer_info() -> TokenizerInfo:
        return TokenizerInfo(
            vocab_size=tokenizer.get_vocab_size(),
            bos_token=tokenizer.id_to_token(tokenizer.get_bos_token_id()),
            eos_token=ASSISTANT_END,
            special_tokens=sorted(tokenizer.get_special_tokens()),
            model_max_length=service.context,
            hash=tokenizer.hash,
        )


def _add_statistics_routes(router: APIRouter, service: Service) -> None:
    @router.get("/stats")
    async def stats() -> Stats:
        return service.stats()

    text = {"content": {"text/plain": {"schema": {"type": "string"}}}}

    @router.get("/metrics", response_class=Response, responses={200: text})
    async def prometheus_metrics() -> Response:
        text = metrics.prometheus_text(service.stats(), service.counters)
        return Response(text, media_type=metrics.MEDIA_TYPE)


def _add_health(app: FastAPI, service: Service) -> None:
    @app.get("/health", responses={503: {"model": Health}})
    async def health(response: Response) -> Health:
        engine, error = service.scheduler.engine, service.scheduler.error
        status = "failed" if error is not None else "ok" if service.ready else "loading"
        # A load balancer reads the status alone.
        response.status_code = 200 if status == "ok" else 503
        return Health(
            status=status,
            ready=service.ready,
            num_gpus=len(engine.devices),
            available_workers=len(engine.slots) - engine.active,
        )


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
