"""Deletes a folder that a program filled as it liked: links, any names and modes, any depth."""

import itertools
import logging
import os
import tempfile

log = logging.getLogger(__name__)


def remove(folder: str) -> None:
    """Deletes it; what cannot be deleted is logged, for no program may end an evaluation."""
    try:
        if os.path.islink(folder) or not os.path.isdir(folder):  # in the place of what was ours
            os.path.lexists(folder) and os.unlink(folder)
        else:
            beside = tempfile.mkdtemp(prefix="nanochat-sandbox-", dir=os.path.dirname(folder))
            _remove(os.fsencode(folder), os.fsencode(beside))
    except Exception as error:
        log.warning("sandbox: %s could not be deleted: %s", folder, error)


def _remove(root: bytes, lifted: bytes) -> None:
    # Folders move into `lifted` before they are looked into: no path gets long, nothing recurses.
    names = (os.path.join(lifted, b"%d" % i) for i in itertools.count())
    todo = [root]
    while todo:
        folder = todo.pop()
        os.chmod(folder, 0o700)  # no link: neither the root nor what was moved is one
        with os.scandir(folder) as entries:
            for entry in list(entries):
                if not entry.is_dir(follow_symlinks=False):
                    os.unlink(entry.path)
                    continue
                os.chmod(entry.path, 0o700)  # a folder that may not be written cannot be moved
                todo.append(next(names))
                os.rename(entry.path, todo[-1])
        os.rmdir(folder)
    os.rmdir(lifted)
