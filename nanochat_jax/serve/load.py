"""From flags to a model that is ready to talk: what the terminal and the server begin with."""

from typing import TYPE_CHECKING, NamedTuple

from nanochat_jax import devices
from nanochat_jax.config.paths import base_dir, compilation_cache
from nanochat_jax.config.serve import Talk

if TYPE_CHECKING:
    from nanochat_jax.models.gpt import Model
    from nanochat_jax.tokenizer import Tokenizer


class Loaded(NamedTuple):
    """A model on a `kind` of device (`cpu`, `gpu`, `tpu`), its step, and a name for it."""

    model: "Model"
    tokenizer: "Tokenizer"
    kind: str
    name: str
    step: int


def load(cfg: Talk, devices_at_most: int = 1) -> Loaded:
    """Sets JAX up, on a CPU with so many devices, and loads the checkpoint that `cfg` names.

    Raises FileNotFoundError with the command that makes the checkpoint when there is none.
    """
    kind = devices.prepare(
        cfg.device_type, cfg.mesh, cfg.simulate_devices,
        virtual=devices_at_most, threads=not cfg.mesh, cache=compilation_cache(base_dir()),
    )  # fmt: skip
    # Imports JAX, which reads its environment then: not before `prepare` has written it.
    from nanochat_jax.checkpoint import load_model

    dtype = None if cfg.dtype == "auto" else cfg.dtype
    step = None if cfg.step < 0 else cfg.step
    model, tokenizer, meta = load_model(cfg.source, cfg.model_tag or None, step, dtype=dtype)
    tag = cfg.model_tag or meta.get("model_tag") or f"d{model.cfg.n_layer}"
    return Loaded(model, tokenizer, kind, f"nanochat-{cfg.source}-{tag}", meta["step"])
