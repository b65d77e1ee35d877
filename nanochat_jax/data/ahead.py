"""Shards fetched in a process beside other work: a tokenizer needs the first few of hundreds."""

import contextlib
import multiprocessing
import os
import pathlib
import signal
from multiprocessing.process import BaseProcess

from tqdm import tqdm

from nanochat_jax.config import paths
from nanochat_jax.data import download, shards


def start(root: pathlib.Path, count: int, recipe: str) -> BaseProcess:
    """Begins to fetch the first `count` shards. It ends with this process, however that ends."""
    # A process, not a thread: at the end of a program Python waits for threads, and after Ctrl-C
    # that would be for hundreds of shards. Not a fork: JAX has threads of its own by now.
    spawn = multiprocessing.get_context("spawn")
    process = spawn.Process(target=_fetch, args=(root, count, recipe), daemon=True)
    process.start()
    return process


def finish(process: BaseProcess, root: pathlib.Path, count: int, recipe: str) -> None:
    """Waits until the shards are here, and fetches what the process did not.

    Raises as `download.shards`.
    """
    with tqdm(total=count, desc="shards", disable=not process.is_alive()) as bar:
        while process.is_alive():
            bar.n = len(shards.list_shards(paths.base_data(root)))
            bar.refresh()
            process.join(1.0)
    # What went wrong there is told here: the call is the same, and what came is not fetched twice.
    download.shards(root, count, recipe=recipe)


def _fetch(root: pathlib.Path, count: int, recipe: str) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's, which then ends us
    with open(os.devnull, "w") as quiet, contextlib.redirect_stderr(quiet):
        with contextlib.suppress(ValueError):
            download.shards(root, count, recipe=recipe)
