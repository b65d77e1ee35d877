"""Fetches what the recipes train on: shards, identity conversations, words, the CORE bundle.

Every file is whole or absent: it is written to `<name>.tmp`, checked, and renamed.
Source: nanochat `nanochat/dataset.py`, `speedrun.sh` (names and addresses).
"""

import concurrent.futures
import dataclasses
import logging
import os
import pathlib
import shutil
import time
import urllib.error
import urllib.request
import zipfile

from tqdm import tqdm

from nanochat_jax.data.shards import open_shard

log = logging.getLogger(__name__)

ATTEMPTS = 5
TIMEOUT_S = 30
CHUNK = 1 << 20
BASE_VARIABLE = "NANOCHAT_DOWNLOAD_BASE"  # another server with the same paths, for all of it
PUBLIC = "https://karpathy-public.s3.us-west-2.amazonaws.com"
WORDS = "https://raw.githubusercontent.com/dwyl/english-words/refs/heads/master/words_alpha.txt"


@dataclasses.dataclass(frozen=True)
class Source:
    """A pretraining set: its address, its last index, and a shard that is always fetched."""

    url: str
    last: int
    always: tuple[int, ...] = ()


SOURCES = {
    "classic": Source(
        "https://huggingface.co/datasets/karpathy/fineweb-edu-100b-shuffle/resolve/main", 1822
    ),
    "current": Source(
        "https://huggingface.co/datasets/karpathy/climbmix-400b-shuffle/resolve/main", 6542, (6542,)
    ),
}


def shards(
    root: pathlib.Path, count: int = -1, *, recipe: str = "classic", workers: int = 4,
    base_url: str | None = None, pause_s: float = 1.0,
) -> int:  # fmt: skip
    """Fetches the first `count` shards (-1: all) into `base_data/`; returns how many are there.

    Raises:
        ValueError: some could not be had; those that could stay, and the call can be repeated.
    """
    source = SOURCES[recipe]
    url = base_url or os.environ.get(BASE_VARIABLE) or source.url
    total = source.last + 1
    wanted = sorted({*range(total if count < 0 else min(count, total)), *source.always})
    folder = root / "base_data"
    missing = [n for n in wanted if not (folder / f"shard_{n:05d}.parquet").exists()]
    log.info("%d of %d shards to fetch, the others are here", len(missing), len(wanted))
    fetch = lambda n: get(
        f"{url}/shard_{n:05d}.parquet", folder / f"shard_{n:05d}.parquet", pause_s=pause_s
    )
    failed = []
    with concurrent.futures.ThreadPoolExecutor(max(1, workers)) as pool:
        jobs = {pool.submit(fetch, n): n for n in missing}
        try:
            done = concurrent.futures.as_completed(jobs)
            for job in tqdm(done, total=len(jobs), desc="shards", disable=not jobs):
                if (error := job.exception()) is not None:
                    failed.append((jobs[job], error))
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    if failed:
        number, error = min(failed, key=lambda f: f[0])
        raise ValueError(
            f"{len(failed)} of {len(missing)} shards could not be had, first shard_{number:05d}: "
            f"{error}; what came stays, call again to go on"
        )
    return len(wanted)


def identity(root: pathlib.Path, base_url: str | None = None) -> pathlib.Path:
    """`identity_conversations.jsonl` in the base directory."""
    name = "identity_conversations.jsonl"
    return get(f"{_public(base_url)}/{name}", root / name)


def words(root: pathlib.Path, base_url: str | None = None) -> pathlib.Path:
    """`words_alpha.txt` in the base directory."""
    other = base_url or os.environ.get(BASE_VARIABLE)
    return get(f"{other}/words_alpha.txt" if other else WORDS, root / "words_alpha.txt")


def eval_bundle(root: pathlib.Path, base_url: str | None = None) -> pathlib.Path:
    """`eval_bundle/` in the base directory: the CORE tasks, unpacked whole or not at all."""
    folder = root / "eval_bundle"
    if folder.is_dir():
        return folder
    archive = get(f"{_public(base_url)}/eval_bundle.zip", root / "eval_bundle.zip")
    part = root / ".eval_bundle.part"
    shutil.rmtree(part, ignore_errors=True)
    try:
        with zipfile.ZipFile(archive) as bundle:
            bundle.extractall(part)  # drops absolute paths and `..` of member names
        inner = part / "eval_bundle"
        (inner if inner.is_dir() else part).rename(folder)
    except zipfile.BadZipFile as error:
        archive.unlink()
        raise ValueError(f"{archive} is no zip archive ({error}); call again") from None
    finally:
        shutil.rmtree(part, ignore_errors=True)
    archive.unlink(missing_ok=True)
    return folder


def get(url: str, path: pathlib.Path, *, pause_s: float = 1.0) -> pathlib.Path:
    """The file at `url`, on disk; one that is there already is kept.

    Raises:
        ValueError: it could not be had in `ATTEMPTS` tries; the last reason is told.
    """
    if path.exists():
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".tmp")
    for attempt in range(1, ATTEMPTS + 1):
        try:
            _stream(url, part)
            if path.suffix == ".parquet":
                open_shard(part).close()
            part.replace(path)
            return path
        except (OSError, ValueError) as error:
            reason = error
            if not isinstance(error, ConnectionError):
                part.unlink(missing_ok=True)
            if isinstance(error, urllib.error.HTTPError) and error.code in (401, 403, 404):
                break
            if attempt < ATTEMPTS:
                time.sleep(pause_s * 2**attempt)
    part.unlink(missing_ok=True)
    raise ValueError(f"could not fetch {url}: {reason}")


def _stream(url: str, part: pathlib.Path) -> None:
    """Writes the body to `part`, going on where an earlier try was cut off if the server can.

    Raises:
        ConnectionError: the body ended before its announced length.
    """
    have = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
    with urllib.request.urlopen(request, timeout=TIMEOUT_S) as reply:
        resumed = reply.status == 206
        announced = int(reply.headers.get("Content-Length") or -1)
        received = 0
        with part.open("ab" if resumed else "wb") as file:
            while chunk := reply.read(CHUNK):
                file.write(chunk)
                received += len(chunk)
    if announced >= 0 and received < announced:
        raise ConnectionError(f"the connection ended after {received} of {announced} bytes")


def _public(base_url: str | None) -> str:
    return base_url or os.environ.get(BASE_VARIABLE) or PUBLIC
