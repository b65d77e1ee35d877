"""Many programs in the sandbox at once."""

import concurrent.futures
import functools
import os

from nanochat_jax.evals import sandbox


def run_many(codes, workers=None, **settings) -> list[sandbox.Result]:
    """`run_python` of each, `workers` at a time (None: one a core), in the order given."""
    sandbox.usable_layers()
    with concurrent.futures.ThreadPoolExecutor(workers or os.cpu_count() or 1) as pool:
        return list(pool.map(functools.partial(sandbox.run_python, **settings), codes))
