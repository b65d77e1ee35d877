"""The saves of one run, beside its training."""

import concurrent.futures
import logging
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import jax

from nanochat_jax.checkpoint import manifest, store
from nanochat_jax.checkpoint.prune import prune
from nanochat_jax.config.saving import Keep

log = logging.getLogger(__name__)
EVERY_STEP = Keep()


class Saver:
    """Saves steps, adds to them and prunes them, in that order and one at a time, in a thread.

    What goes wrong there is raised by the next call of any method here. As a context it ends when
    all is on disk, also where the block ends with an error.

    Args:
        root: the base directory, whose runs may have been born from steps of this one.
        saved: told the folder of each step once it is on disk, in that thread.
    """

    def __init__(
        self, directory: pathlib.Path, root: pathlib.Path, keep: Keep = EVERY_STEP,
        saved: Callable[[pathlib.Path], None] = lambda path: None,
    ):  # fmt: skip
        self._directory, self._root, self._keep, self._saved = directory, root, keep, saved
        self._thread = concurrent.futures.ThreadPoolExecutor(1, thread_name_prefix="saving")
        self._tasks: list[concurrent.futures.Future] = []

    def __enter__(self) -> "Saver":
        return self

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        try:
            self.wait()
        except Exception as own:
            if error is None:
                raise
            log.error("saving failed too: %s", own)
        finally:
            self._thread.shutdown()

    def save(
        self, step: int, params: Any, meta: Mapping[str, Any], *, optimizer: Any, loader: Any
    ) -> pathlib.Path:
        """Begins to save a step; its arrays may be donated as soon as this returns.

        Raises:
            OSError: the disk is full or not writable: now, or for the step before.
        """
        self.wait()  # two at a time would keep two copies of the state
        finish = store.begin(
            self._directory, step, params, meta, optimizer=optimizer, loader=loader
        )
        self._tasks.append(self._thread.submit(self._finish, finish))
        return store.folder(self._directory, step)

    def amend(self, path: pathlib.Path, changes: Mapping[str, Any]) -> None:
        """Sets keys in the `meta.json` of a step, once that is on disk."""
        self.check()
        if jax.process_index() == 0:
            self._tasks.append(self._thread.submit(manifest.amend_meta, path, changes))

    def check(self) -> None:
        """Raises what went wrong meanwhile."""
        while self._tasks and self._tasks[0].done():
            self._tasks.pop(0).result()

    def wait(self) -> None:
        """Until all is on disk; raises what went wrong."""
        while self._tasks:
            self._tasks.pop(0).result()

    def _finish(self, finish: Callable[[], pathlib.Path]) -> None:
        path = finish()
        self._saved(path)
        if jax.process_index() == 0:
            prune(self._directory, self._keep, self._root, newest=int(path.name))
