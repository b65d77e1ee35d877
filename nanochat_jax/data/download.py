"""Fetches what the recipes train on: shards, identity conversations, words, the CORE bundle.

Every file is whole or absent, and a shard is one that opens.
Source: nanochat `nanochat/dataset.py`, `speedrun.sh` (names and addresses).
"""

import concurrent.futures
import dataclasses
import logging
import os
import pathlib
import time
import urllib.error
import urllib.request
import zipfile
from collections.abc import Callable, Sequence
from typing import IO, Any

from tqdm import tqdm

from nanochat_jax.config import paths
from nanochat_jax.data.shards import open_shard, shard_name
from nanochat_jax.files import whole_file, whole_folder
from nanochat_jax.tasks.hub import WORDS_URL

log = logging.getLogger(__name__)

ATTEMPTS = 5  # as the original
TIMEOUT_S = 30  # without a byte
CHUNK = 1 << 20
BASE_VARIABLE = "NANOCHAT_DOWNLOAD_BASE"  # another server with the same paths, for all of it
PUBLIC = "https://karpathy-public.s3.us-west-2.amazonaws.com"


@dataclasses.dataclass(frozen=True)
class PretrainingSet:
    """Its address, its last shard's number, and shards that are always fetched."""

    url: str
    last: int
    always: tuple[int, ...] = ()


SETS = {
    "classic": PretrainingSet(
        "https://huggingface.co/datasets/karpathy/fineweb-edu-100b-shuffle/resolve/main", 1822
    ),
    # The last shard validates. Fetched always, it is the same one however many others are here,
    # and scores of two runs can be compared.
    "current": PretrainingSet(
        "https://huggingface.co/datasets/karpathy/climbmix-400b-shuffle/resolve/main", 6542, (6542,)
    ),
}


def shards(
    root: pathlib.Path, count: int = -1, *, recipe: str = "classic", workers: int = 4,
    base_url: str | None = None, pause_s: float = 1.0,
) -> int:  # fmt: skip
    """Fetches the first `count` shards (-1: all) into `base_data/`; returns how many are there.

    Raises:
        ValueError: some could not be fetched; the others stay, and the call can be repeated.
    """
    known, folder = SETS[recipe], paths.base_data(root)
    url = base_url or _server(known.url)
    total = known.last + 1
    wanted = sorted({*range(total if count < 0 else min(count, total)), *known.always})
    missing = [n for n in wanted if not (folder / shard_name(n)).exists()]
    log.info("%d of %d shards to fetch, the others are here", len(missing), len(wanted))
    fetch = lambda n: get(f"{url}/{shard_name(n)}", folder / shard_name(n), pause_s=pause_s)
    failed = _errors(fetch, missing, workers)
    if failed:
        number, error = min(failed.items())
        raise ValueError(
            f"{len(failed)} of {len(missing)} shards could not be fetched, first "
            f"{shard_name(number)}: {error}; what came stays, call again to continue"
        )
    return len(wanted)


def _errors(
    fetch: Callable[[int], Any], numbers: Sequence[int], workers: int
) -> dict[int, BaseException]:
    """Fetches these shards; the errors of those that failed."""
    failed = {}
    with concurrent.futures.ThreadPoolExecutor(max(1, workers)) as pool:
        jobs = {pool.submit(fetch, n): n for n in numbers}
        try:
            done = concurrent.futures.as_completed(jobs)
            for job in tqdm(done, total=len(jobs), desc="shards", disable=not jobs):
                if (error := job.exception()) is not None:
                    failed[jobs[job]] = error
        except BaseException:
            # Ctrl-C is to stop now, not after the hundreds of shards that wait in the pool.
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return failed


def identity(root: pathlib.Path) -> pathlib.Path:
    """`identity_conversations.jsonl` in the base directory."""
    path = paths.identity(root)
    return get(f"{_server(PUBLIC)}/{path.name}", path)


def words(root: pathlib.Path) -> pathlib.Path:
    """`words_alpha.txt` in the base directory."""
    path = paths.words(root)
    other = os.environ.get(BASE_VARIABLE)
    return get(f"{other}/{path.name}" if other else WORDS_URL, path)


def eval_bundle(root: pathlib.Path) -> pathlib.Path:
    """`eval_bundle/` in the base directory: the CORE tasks, unpacked whole or not at all."""
    folder = paths.eval_bundle(root)
    if folder.is_dir():
        return folder
    archive = get(f"{_server(PUBLIC)}/eval_bundle.zip", root / "eval_bundle.zip")
    try:
        with zipfile.ZipFile(archive) as bundle, whole_folder(folder) as part:
            # One folder is meant; a Mac that packs an archive adds others.
            inner = [m for m in bundle.infolist() if m.filename.startswith("eval_bundle/")]
            for member in inner or bundle.infolist():
                if name := member.filename.removeprefix("eval_bundle/"):
                    member.filename = name
                    bundle.extract(member, part)  # drops absolute paths and `..` of names
    except zipfile.BadZipFile as error:
        archive.unlink()
        raise ValueError(f"{archive} is no zip archive ({error}); call again") from None
    archive.unlink()
    return folder


def get(url: str, path: pathlib.Path, *, pause_s: float = 1.0) -> pathlib.Path:
    """The file at `url`, on disk; one that is there already is kept.

    Raises:
        ValueError: it could not be fetched in `ATTEMPTS` tries; the last reason is named.
    """
    if path.exists():
        return path
    try:
        with whole_file(path) as file:
            _fetch(url, file, path.suffix, pause_s)
    except (OSError, ValueError) as error:
        raise ValueError(f"could not fetch {url}: {error}") from None
    return path


def _fetch(url: str, file: IO[bytes], suffix: str, pause_s: float) -> None:
    """Writes the body to `file`; raises the last try's error."""
    for attempt in range(1, ATTEMPTS + 1):
        try:
            _stream(url, file)
            if suffix == ".parquet":
                open_shard(pathlib.Path(file.name)).close()
            return
        except (OSError, ValueError) as error:
            if not isinstance(error, ConnectionError):
                file.seek(0)  # after a cut connection the next try continues here
                file.truncate()
            # Not there, or not for us: to ask again changes nothing.
            final = isinstance(error, urllib.error.HTTPError) and error.code in (401, 403, 404)
            if final or attempt == ATTEMPTS:
                raise
            time.sleep(pause_s * 2**attempt)


def _stream(url: str, file: IO[bytes]) -> None:
    """Appends the body to `file`, continuing where an earlier try was cut off if the server can.

    Raises:
        ConnectionError: the body ended before its announced length.
    """
    have = file.tell()
    request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
    with urllib.request.urlopen(request, timeout=TIMEOUT_S) as reply:
        if reply.status != 206:
            file.seek(0)
            file.truncate()
        announced, begun = int(reply.headers.get("Content-Length") or -1), file.tell()
        while chunk := reply.read(CHUNK):
            file.write(chunk)
        file.flush()
        received = file.tell() - begun
    if announced >= 0 and received < announced:
        raise ConnectionError(f"the connection ended after {received} of {announced} bytes")


def _server(usual: str) -> str:
    return os.environ.get(BASE_VARIABLE) or usual
