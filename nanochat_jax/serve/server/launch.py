"""From flags to a running server: address, model, engine, and how all of it ends."""

import contextlib
import dataclasses
import errno
import logging
import os
import signal
import socket
from typing import TYPE_CHECKING

from nanochat_jax import devices
from nanochat_jax.config.mesh import mesh_size
from nanochat_jax.config.serve import ChatWeb
from nanochat_jax.serve.load import Loaded, load
from nanochat_jax.serve.server import keys

if TYPE_CHECKING:
    from nanochat_jax.serve.engine import Engine
    from nanochat_jax.serve.server.service import Service

logger = logging.getLogger(__name__)

# Seconds from the end of the drain until uvicorn cuts connections: a reply which the engine ended
# early still gets its last event.
GRACE_S = 2
# Connections that may wait to be accepted: while the model loads nobody accepts any.
BACKLOG = 2048
# A step on an accelerator reads all weights for one row as for many: on an H100 a step of d20 takes
# 1.8 ms for one row and 4.0 ms for 64. A CPU pays for every row.
CPU_SLOTS, ACCELERATOR_SLOTS = 16, 32
SMALL = 64 * 2**20  # bytes of weights that one core reads in some milliseconds


def with_mesh(cfg: ChatWeb) -> ChatWeb:
    """The config with `-n 8` as `--mesh 8`; raises ValueError when the two contradict."""
    if cfg.num_gpus < 0 or (cfg.mesh and cfg.num_gpus not in (0, mesh_size(cfg.mesh))):
        raise ValueError(
            f"num_gpus is {cfg.num_gpus} and mesh {cfg.mesh!r}; expected -n 1 or more, and one of "
            "the two flags: -n 8 is --mesh 8"
        )
    return cfg if cfg.mesh or not cfg.num_gpus else dataclasses.replace(cfg, mesh=str(cfg.num_gpus))


def with_keys(cfg: ChatWeb) -> ChatWeb:
    """The config with every key that is let in; raises as `keys.read_keys` does."""
    if cfg.api_key:
        logger.warning(
            "--api-key can be read by every user of this machine, in its list of processes; "
            "$%s and --api-key-file cannot", keys.VARIABLE,
        )  # fmt: skip
    return dataclasses.replace(cfg, api_key=keys.read_keys(cfg))


def mesh_text(kind: str, weight_bytes: int, slots: int) -> str:
    """The mesh where nobody named one.

    The many small operations of a small model's step run in one thread each: two cores do more with
    half of the rows each. A large model is read by all cores together, or a chat alone would wait.
    """
    small = kind == "cpu" and weight_bytes <= SMALL
    return str(devices.virtual_devices(slots, 1) if small else 1)


def bind(host: str, port: int) -> socket.socket:
    """The server's socket, taken before minutes of loading; raises ValueError when it is in use.

    It listens at once, so that no other server gets the same port meanwhile.
    """
    sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        sock.bind((host, port))
        sock.listen(BACKLOG)
    except OSError as error:
        sock.close()
        other = 8000 if port < 1024 or port == 65535 else port + 1
        advice = f"choose another port with -p {other}"
        if isinstance(error, socket.gaierror) or error.errno == errno.EADDRNOTAVAIL:
            advice = "use --host 127.0.0.1, or 0.0.0.0 to let other machines in"
        raise ValueError(f"cannot listen on {host}:{port} ({error.strerror}); {advice}") from None
    return sock


def address(host: str, port: int) -> str:
    """What to type into a browser on this machine for a server that listens there."""
    # A server that listens everywhere listens on the address of this machine, too.
    name = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, f"[{host}]" if ":" in host else host)
    return f"http://{name}:{port}"


def serve(cfg: ChatWeb) -> int:
    """Serves until SIGINT or SIGTERM; returns the exit code."""
    cfg = with_keys(with_mesh(cfg))
    sock = bind(cfg.host, cfg.port)
    logger.info("reading the %s model (Ctrl-C ends it)", cfg.source)
    return run(loaded_service(cfg), sock)


def loaded_service(cfg: ChatWeb) -> "Service":
    """The service of the checkpoint that `cfg` names. Its engine alone holds weights: not also the
    model as it was read."""
    loaded = load(cfg, devices.virtual_devices(cfg.slots or CPU_SLOTS, 1), merge=False)
    return new_service(cfg, loaded, new_engine(cfg, loaded))


def new_engine(cfg: ChatWeb, loaded: Loaded) -> "Engine":
    """The engine that `cfg` wants: slots by the kind and number of devices."""
    # JAX is imported late, in each of these functions: the socket comes first.
    from nanochat_jax.serve.engine import Engine
    from nanochat_jax.serve.engine.weights import nbytes
    from nanochat_jax.sharding import make_mesh

    rows = cfg.slots or CPU_SLOTS
    mesh = make_mesh(cfg.mesh or mesh_text(loaded.kind, nbytes(loaded.model.params), rows))
    # All devices of a CPU share its cores, each accelerator brings its own.
    each = -(-CPU_SLOTS // mesh.size) if loaded.kind == "cpu" else ACCELERATOR_SLOTS
    slots = cfg.slots or each * mesh.size
    return Engine(loaded.model, loaded.tokenizer, slots=slots, int8=cfg.int8, mesh=mesh)


def new_service(cfg: ChatWeb, loaded: Loaded, engine: "Engine") -> "Service":
    """The service over `engine`, its thread not yet started."""
    from nanochat_jax.serve.server.scheduler import Scheduler, tune_interpreter
    from nanochat_jax.serve.server.service import Service

    scheduler = Scheduler(engine, cfg.queue, when_warm=tune_interpreter)
    name = cfg.model_name or loaded.name
    base = f"{name}-base" if loaded.base == name else loaded.base
    return Service(scheduler, loaded.tokenizer, name, cfg, base)


def run(service: "Service", sock: socket.socket) -> int:
    """Answers on `sock` until a signal; returns the exit code."""
    from nanochat_jax.serve.server import connections
    from nanochat_jax.serve.server.api import create_app
    from nanochat_jax.serve.server.draining import DrainingServer

    scheduler = service.scheduler
    settings = connections.settings(
        create_app(service), service.cfg, backlog=BACKLOG,
        timeout_graceful_shutdown=service.cfg.drain + GRACE_S,
    )  # fmt: skip
    url = address(*sock.getsockname()[:2])
    logger.info("%s: compiling; %s shows how far it is", service.model_id, url)
    scheduler.when_ready = lambda: logger.info("ready: %s", url)
    # uvicorn raises the signal that ended it again; by then all is drained: leaving is no error.
    signal.signal(signal.SIGTERM, lambda *_: None)
    with contextlib.suppress(KeyboardInterrupt):
        DrainingServer(settings, service).run(sockets=[sock])
    code = 0 if scheduler.error is None else 1
    if scheduler.alive:  # in the middle of a compilation, which nothing can stop but this
        logging.shutdown()
        os._exit(code)
    return code
