"""Fetches what the recipes train on: shards, identity conversations, words, the CORE bundle.

Every file is whole or absent, and a shard is one that opens.
Source: nanochat `nanochat/dataset.py`, `speedrun.sh` (names and addresses).
"""

import hashlib
import http.client
import logging
import os
import pathlib
import shutil
import time
import urllib.error
import urllib.request
import zipfile
from typing import IO

from tqdm.contrib.concurrent import thread_map

from nanochat_jax.config import paths
from nanochat_jax.data import manifest
from nanochat_jax.data.shards import NUMBERED, list_shards, open_shard, shard_name
from nanochat_jax.files import whole_file, whole_folder
from nanochat_jax.tasks.hub import WORDS_URL

log = logging.getLogger(__name__)

ATTEMPTS = 5  # as the original
HOPELESS = 4  # shards that failed where none came: 236 more would not come either
TIMEOUT_S = 30  # without a byte
BASE_VARIABLE = "NANOCHAT_DOWNLOAD_BASE"  # another server with the same paths, for all of it
PUBLIC = "https://karpathy-public.s3.us-west-2.amazonaws.com"
HUB = "https://huggingface.co/datasets/karpathy"
# Where each recipe's shards are, their number, and those that are always fetched. By the recipe
# that came first with a text; others that read it are in `SAME_TEXT`.
SETS: dict[str, tuple[str, int, tuple[int, ...]]] = {
    "classic": (f"{HUB}/fineweb-edu-100b-shuffle/resolve/main", 1823, ()),
    # The last shard validates. Fetched always, it is the same one however many others are here,
    # and scores of two runs can be compared.
    "current": (f"{HUB}/climbmix-400b-shuffle/resolve/main", 6543, (6542,)),
}
SAME_TEXT = {"portable": "classic"}


def shards(
    root: pathlib.Path, count: int = -1, *, recipe: str = "classic", workers: int = 4,
    base_url: str | None = None, pause_s: float = 1.0, mix: bool = False,
) -> int:  # fmt: skip
    """Fetches the first `count` shards (-1: all) into `base_data/`; returns how many are there.

    Args:
        mix: also beside shards of other text.

    Raises:
        ValueError: there is other text; or some could not be fetched: the others stay, and the call
            can be repeated.
    """
    recipe = SAME_TEXT.get(recipe, recipe)
    usual, total, always = SETS[recipe]
    folder, url = paths.base_data(root), base_url or os.environ.get(BASE_VARIABLE) or usual
    if not mix and (other := own(root) or of_other_sets(folder, recipe)):
        what = "texts of your own" if own(root) else "the shards of another recipe"
        raise ValueError(
            f"{folder} holds {what} ({other[0].name}); shards of {recipe} beside them would be "
            "trained on with them, and the last by name of all would validate. Use another base "
            "directory: NANOCHAT_BASE_DIR=... python -m scripts.data download; to mix them type "
            "python -m scripts.data download --mix"
        )
    wanted = sorted({*range(total if count < 0 else min(count, total)), *always})
    missing = [p for n in wanted if not (p := folder / shard_name(n)).exists()]
    log.info("%d of %d shards to fetch, the others are here", len(missing), len(wanted))

    errors: list[ValueError] = []
    came: list[str] = []

    def failure(path: pathlib.Path) -> ValueError | None:
        if len(errors) >= HOPELESS and not came:
            return errors[0]
        try:
            digest = _fetch(f"{url}/{path.name}", path, pause_s)
        except ValueError as error:
            errors.append(error)
            return error
        came.append(path.name)
        manifest.record(folder, {path.name: digest}, source=recipe)

    # Ctrl-C stops it now, not after the hundreds of shards that wait: `map` takes those back.
    tried = thread_map(
        failure, missing, max_workers=max(1, workers), desc="shards", disable=not missing
    )
    if failed := [error for error in tried if error]:
        raise ValueError(
            f"{len(failed)} of {len(missing)} shards could not be fetched, the first: {failed[0]}; "
            "what came stays, call again to continue"
        )
    return len(wanted)


def own(root: pathlib.Path) -> list[pathlib.Path]:
    """The shards of `base_data/` that no recipe's set has: people's own, by their names."""
    most = max(total for _, total, _ in SETS.values())
    number = lambda path: int(m[1]) if (m := NUMBERED.fullmatch(path.name.lower())) else most
    return [path for path in list_shards(paths.base_data(root)) if number(path) >= most]


def of_other_sets(folder: pathlib.Path, recipe: str) -> list[pathlib.Path]:
    """The shards of a folder that were downloaded for another recipe: their names are the same."""
    entries = manifest.read(folder)
    source = lambda path: entries[path.name].source if path.name in entries else ""
    return [path for path in list_shards(folder) if source(path) not in ("", recipe)]


def identity(root: pathlib.Path) -> pathlib.Path:
    """`identity_conversations.jsonl` in the base directory."""
    return _from(PUBLIC, paths.identity(root))


def words(root: pathlib.Path) -> pathlib.Path:
    """`words_alpha.txt` in the base directory."""
    return _from(os.path.dirname(WORDS_URL), paths.words(root))


def eval_bundle(root: pathlib.Path) -> pathlib.Path:
    """`eval_bundle/` in the base directory: the CORE tasks, unpacked whole or not at all."""
    folder = paths.eval_bundle(root)
    if folder.is_dir():
        return folder
    archive = _from(PUBLIC, root / "eval_bundle.zip")
    try:
        with zipfile.ZipFile(archive) as bundle, whole_folder(folder) as part:
            # One folder is meant; a Mac that packs an archive adds others.
            inner = [m for m in bundle.infolist() if m.filename.startswith("eval_bundle/")]
            for member in inner or bundle.infolist():
                if name := member.filename.removeprefix("eval_bundle/"):
                    member.filename = name
                    bundle.extract(member, part)  # drops absolute paths and `..` of names
    except zipfile.BadZipFile as error:
        raise ValueError(f"{archive} is no zip archive ({error}); call again") from None
    finally:
        archive.unlink()
    return folder


def _from(usual: str, path: pathlib.Path) -> pathlib.Path:
    """The file, from the usual server or the one that `$NANOCHAT_DOWNLOAD_BASE` names."""
    return get(f"{os.environ.get(BASE_VARIABLE) or usual}/{path.name}", path)


def get(url: str, path: pathlib.Path, *, pause_s: float = 1.0) -> pathlib.Path:
    """The file at `url`, fetched if it is not there; raises ValueError with the last reason."""
    if not path.exists():
        _fetch(url, path, pause_s)
    return path


class _Arriving:
    """A file that is being fetched, and the digest of what it holds so far."""

    def __init__(self, file: IO[bytes]):
        self.file, self.digest = file, hashlib.sha256()

    def write(self, chunk: bytes) -> None:
        self.digest.update(chunk)
        self.file.write(chunk)

    def restart(self) -> None:
        """Throws away what has come."""
        self.file.truncate(self.file.seek(0))
        self.digest = hashlib.sha256()


def _fetch(url: str, path: pathlib.Path, pause_s: float) -> str:
    """Fetches the file at `url` to `path` and returns its SHA-256; raises as `get`."""
    try:
        with whole_file(path) as file:
            arriving = _Arriving(file)
            _try(url, arriving, path.suffix, pause_s)
    except (OSError, ValueError, http.client.HTTPException) as error:
        raise ValueError(f"could not fetch {url}: {error}") from None
    return arriving.digest.hexdigest()


def _try(url: str, arriving: _Arriving, suffix: str, pause_s: float) -> None:
    """Fetches the body, again where that may help; raises the last try's error."""
    for attempt in range(1, ATTEMPTS + 1):
        try:
            _stream(url, arriving)
            if suffix == ".parquet":
                open_shard(pathlib.Path(arriving.file.name)).close()
            return
        except (OSError, ValueError, http.client.HTTPException) as error:
            if not isinstance(error, ConnectionError):  # after a cut one the next try goes on here
                arriving.restart()
            # Not there, or not for us: to ask again changes nothing.
            final = isinstance(error, urllib.error.HTTPError) and error.code in (401, 403, 404)
            if final or attempt == ATTEMPTS:
                raise
            time.sleep(pause_s * 2**attempt)


def _stream(url: str, arriving: _Arriving) -> None:
    """Appends the body, continuing where an earlier try was cut off if the server can."""
    have = arriving.file.tell()
    request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
    with urllib.request.urlopen(request, timeout=TIMEOUT_S) as reply:
        if reply.status != 206:
            arriving.restart()
        shutil.copyfileobj(reply, arriving)
        arriving.file.flush()
        if missing := getattr(reply, "length", 0):  # what a `file:` address gives has none
            raise ConnectionError(f"the connection ended {missing} bytes before the end")
