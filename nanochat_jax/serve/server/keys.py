"""Where keys come from: flags, a file, the environment. Imports nothing that waits for JAX."""

import os
import pathlib
from collections.abc import Mapping

from nanochat_jax.config.serve import ChatWeb

VARIABLE = "NANOCHAT_API_KEY"


def read_keys(cfg: ChatWeb, environ: Mapping[str, str] = os.environ) -> tuple[str, ...]:
    """The keys that are let in; () lets everybody in.

    Raises ValueError for a file without any: who named one wants the server shut.
    """
    keys = [*cfg.api_key, *environ.get(VARIABLE, "").split()]
    if cfg.api_key_file:
        found = pathlib.Path(cfg.api_key_file).read_text(encoding="utf-8-sig").split()
        if not found:
            raise ValueError(f"--api-key-file {cfg.api_key_file} holds no key; write one a line")
        keys += found
    return tuple(keys)
