"""From flags to a model that is ready to talk: what the terminal and the server begin with."""

import pathlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from nanochat_jax import devices
from nanochat_jax.config.paths import base_dir, compilation_cache
from nanochat_jax.config.serve import Talk

if TYPE_CHECKING:
    from nanochat_jax.models.gpt import Model
    from nanochat_jax.tokenizer import Tokenizer


class Loaded(NamedTuple):
    """A model on a `kind` of device (`cpu`, `gpu`, `tpu`), its step, and a name for it.

    `base`: the name of the model without the adapters that lie beside its weights; empty: there are
    none.
    """

    model: "Model"
    tokenizer: "Tokenizer"
    kind: str
    name: str
    step: int
    base: str = ""


def load(cfg: Talk, devices_at_most: int = 1, *, merge: bool = True) -> Loaded:
    """Sets JAX up, on a CPU with so many devices, and loads the checkpoint that `cfg` names;
    `merge` as of `load_model`.

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
    how = dict(dtype=dtype, merge=merge)
    model, tokenizer, meta = load_model(cfg.source, cfg.model_tag or None, step, **how)
    tag = cfg.model_tag or meta.get("model_tag") or f"d{model.cfg.n_layer}"
    name = f"nanochat-{cfg.source}-{tag}"
    base = "" if merge else base_name(name, meta)
    return Loaded(model, tokenizer, kind, name, meta["step"], base)


def base_name(name: str, meta: Mapping[str, Any]) -> str:
    """What the model of that name is called without its adapters; empty: it has none."""
    if "lora" not in meta:
        return ""
    base = meta["lora"]["base"]
    own = f"nanochat-{base['stage']}-{pathlib.PurePath(base['path']).parts[-2]}"
    return own if own != name else f"{name}-base"  # a stage that began with one of its own
