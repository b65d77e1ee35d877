"""`scripts.data identity`: the flags become a call of `make`."""

import os
import pathlib

from nanochat_jax.config import paths
from nanochat_jax.config.data import MakeIdentity
from nanochat_jax.identity import make
from nanochat_jax.identity.endpoint import Endpoint
from nanochat_jax.identity.facts import read_identity


def run(command: MakeIdentity) -> int:
    """Writes the conversations, prints what was done, and returns the exit code."""
    who = read_identity(command.name, pathlib.Path(command.facts).expanduser())
    path = pathlib.Path(command.out or paths.identity(paths.base_dir())).expanduser()
    settings = {"seed": command.seed, "fresh": command.fresh}
    if command.endpoint:
        endpoint = Endpoint(
            command.endpoint, command.model, os.environ.get("OPENAI_API_KEY"),
            temperature=command.temperature, max_tokens=command.max_tokens,
        )  # fmt: skip
        workers = command.num_workers
        made = make.from_endpoint(path, who, command.count, endpoint, workers=workers, **settings)
    else:
        made = make.from_templates(path, who, command.count, **settings)
    print(made.summary(command.count))
    print(f"{path}: {made.total} conversations about {who.name} (facts: {len(who.facts)})")
    return 0
