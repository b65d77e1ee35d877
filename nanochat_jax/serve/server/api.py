"""The HTTP server: OpenAI's API, the original's own, and the chat page, in one application."""

import contextlib
import functools
import importlib.resources
import time
from collections.abc import AsyncIterator, Iterator
from importlib.resources.abc import Traversable

from fastapi import APIRouter, Depends, FastAPI
from fastapi.middleware.cors import CORSMiddleware
from fastapi.responses import Response
from fastapi.security import HTTPBearer

from nanochat_jax.serve.server import (
    chat,
    completions,
    errors,
    guards,
    metrics,
    middleware,
    responses,
)
from nanochat_jax.serve.server.responses import refusals
from nanochat_jax.serve.server.schemas import DetokenizeRequest, TokenizeRequest
from nanochat_jax.serve.server.service import Service
from nanochat_jax.tokenizer.chat_format import ASSISTANT_END

MEDIA = {
    "html": "text/html", "js": "text/javascript", "css": "text/css", "svg": "image/svg+xml",
    "json": "application/json",
}  # fmt: skip
PAGE_HEADERS = {
    # No inline script runs, and no text is evaluated or becomes HTML (trusted types), whatever a
    # reply holds and whatever a vendored library might try.
    "Content-Security-Policy": "default-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'; object-src 'none'; require-trusted-types-for 'script'; "
    "trusted-types 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}


def create_app(service: Service) -> FastAPI:
    """The application. It starts `service`'s engine with the server and ends it with it."""

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        service.scheduler.start()
        yield
        if not service.scheduler.closing:
            service.scheduler.close(service.cfg.drain)

    app = FastAPI(
        title="nanochat", version="1", lifespan=lifespan, docs_url=None, redoc_url=None,
        responses=responses.ANY_REFUSAL,
    )  # fmt: skip
    errors.add_handlers(app)
    # For the document alone, it refuses nobody: keys are asked for before the page's files, too.
    bearer = Depends(HTTPBearer(scheme_name="bearer", auto_error=False))
    guarded = {"dependencies": [bearer], "responses": refusals(401)}
    router = APIRouter(**(guarded if service.cfg.api_key else {}))
    chat.add_routes(router, service)
    completions.add_routes(router, service)
    _add_model_routes(router, service)
    _add_tokenizer_routes(router, service)
    _add_statistics_routes(router, service)
    app.include_router(router)
    _add_health(app, service)
    _add_page(app)
    _add_middleware(app, service)
    return app


def _add_middleware(app: FastAPI, service: Service) -> None:
    """Adds what stands before the routes; the one added last sees a request first."""
    cfg = service.cfg
    app.add_middleware(middleware.BodyLimit)
    # The rate stands before the keys: who guesses is counted, too.
    if cfg.api_key:
        app.add_middleware(middleware.Guard, check=guards.bearer_keys(cfg.api_key))
    if cfg.rate_limit:
        app.add_middleware(middleware.Guard, check=guards.rate_limit(cfg.rate_limit))
    if guards.guards_hosts(cfg):
        names = (*cfg.allowed_host, cfg.host)
        app.add_middleware(middleware.Guard, check=guards.hosts(names))
    if cfg.cors_origin:
        allowed = {"allow_methods": ["GET", "POST"], "allow_headers": ["*"]}
        app.add_middleware(CORSMiddleware, allow_origins=cfg.cors_origin, **allowed)
    # Outside of the others, so that their refusals are counted, too.
    app.add_middleware(middleware.CountRequests, counters=service.counters)
    app.add_middleware(middleware.HeadAsGet)


def _add_model_routes(router: APIRouter, service: Service) -> None:
    created = int(service.counters.started)

    def card(name: str) -> responses.ModelCard:
        parent = (service.base_id or None) if name == service.model_id else None
        context = service.context
        return responses.ModelCard(id=name, created=created, max_model_len=context, parent=parent)

    @router.get("/v1/models")
    async def list_models() -> responses.ModelList:
        return responses.ModelList(data=[card(name) for name in service.model_ids])

    @router.get("/v1/models/{name}", responses=refusals(404))
    async def show_model(name: str) -> responses.ModelCard:
        return card(service.named(name))


def _add_tokenizer_routes(router: APIRouter, service: Service) -> None:
    tokenizer = service.tokenizer

    # Not `async`: FastAPI runs it in a thread, for a megabyte of text takes its time.
    @router.post("/tokenize", responses=refusals(400, 413, 429))
    def tokenize(body: TokenizeRequest) -> responses.TokenIds:
        if body.messages is not None:
            tokens = service.chat_prompt(body.messages, 0).tokens
        elif body.prompt in tokenizer.get_special_tokens():
            tokens = [tokenizer.encode_special(body.prompt)]
        else:
            bos = tokenizer.get_bos_token_id() if body.add_special_tokens else None
            tokens = tokenizer.encode(body.prompt, prepend=bos)
        return responses.TokenIds(tokens=tokens, count=len(tokens), max_model_len=service.context)

    @router.post("/detokenize", responses=refusals(400, 413, 429))
    def detokenize(body: DetokenizeRequest) -> responses.DecodedText:
        service.check_tokens(body.tokens, "tokens")
        return responses.DecodedText(prompt=tokenizer.decode(body.tokens))

    @router.get("/tokenizer_info")
    async def tokenizer_info() -> responses.TokenizerInfo:
        bos = tokenizer.id_to_token(tokenizer.get_bos_token_id())
        return responses.TokenizerInfo(
            vocab_size=tokenizer.get_vocab_size(), bos_token=bos, eos_token=ASSISTANT_END,
            special_tokens=sorted(tokenizer.get_special_tokens()),
            model_max_length=service.context, hash=tokenizer.hash,
        )  # fmt: skip


def _add_statistics_routes(router: APIRouter, service: Service) -> None:
    @router.get("/stats")
    async def stats() -> responses.Stats:
        scheduler, engine = service.scheduler, service.scheduler.engine
        slots, pool, devices = len(engine.slots), engine.pool, enumerate(engine.devices)
        return responses.Stats(
            total_workers=slots, available_workers=slots - engine.active,
            busy_workers=engine.active, model=service.model_id, context=engine.max_len,
            workers=[responses.Worker(gpu_id=i, device=name) for i, name in devices],
            waiting=scheduler.waiting, queue_limit=scheduler.queue_limit,
            compilations=pool.compilations, cache_tokens_per_row=pool.length,
            cache_bytes=pool.cache_bytes, weight_bytes=pool.weight_bytes, int8=engine.int8,
            uptime_s=round(time.time() - service.counters.started, 3), **service.counters.tokens,
        )  # fmt: skip

    text = {"content": {"text/plain": {"schema": {"type": "string"}}}}

    @router.get("/metrics", response_class=Response, responses={200: text})
    async def prometheus_metrics() -> Response:
        exposed = service.counters.exposed(await stats())
        return Response(exposed, headers={"Content-Type": metrics.MEDIA_TYPE})


def _add_health(app: FastAPI, service: Service) -> None:
    @app.get(
        "/health",
        response_model_exclude_unset=True,
        responses={503: {"model": responses.Health}},
    )
    async def health(response: Response) -> responses.Health:
        engine, status = service.scheduler.engine, service.status
        # A load balancer reads the status alone.
        response.status_code = 200 if status == "ok" else 503
        free, ready = len(engine.slots) - engine.active, status == "ok"
        progress = {"progress": round(engine.pool.warm, 3)} if status == "loading" else {}
        return responses.Health(
            status=status, ready=ready, num_gpus=len(engine.devices), available_workers=free,
            **progress,
        )  # fmt: skip


def _add_page(app: FastAPI) -> None:
    """The page's files, read once: no path from outside ever reaches the disk."""
    files = dict(_page_files(importlib.resources.files("nanochat_jax.serve.server") / "page"))

    async def page_file(name: str) -> Response:
        media = MEDIA.get(name.rsplit(".", 1)[-1])
        if name not in files or media is None:
            raise errors.ApiError(404, f"there is no file {name!r} here")
        return Response(files[name], media_type=media, headers=PAGE_HEADERS)

    page, logo = (functools.partial(page_file, name) for name in ("index.html", "logo.svg"))
    app.add_api_route("/", page, include_in_schema=False)
    app.add_api_route("/logo.svg", logo, include_in_schema=False)
    app.add_api_route("/web/{name:path}", page_file, include_in_schema=False)


def _page_files(folder: Traversable, within: str = "") -> Iterator[tuple[str, bytes]]:
    """The name, as the page asks for it, and the content of every file of `folder`."""
    for entry in folder.iterdir():
        if entry.is_dir():
            yield from _page_files(entry, f"{within}{entry.name}/")
        else:
            yield within + entry.name, entry.read_bytes()
