"""The data of a run: what its checkpoints say of it, and the same again when it goes on."""

import logging
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from nanochat_jax.config import paths
from nanochat_jax.config.values import digest
from nanochat_jax.data import manifest, shards
from nanochat_jax.tasks import Mixture

log = logging.getLogger(__name__)

Text = dict[str, str]


def of_shards(data: shards.Shards) -> dict[str, Any]:
    """The shards of a run as JSON, in their order, with what tells each apart, and a hash of all.

    Raises:
        ValueError: a shard that is not what the manifest of its folder says.
    """
    what = manifest.identify([*data.train, data.val])
    val = {data.val.name: what.pop(data.val.name)}
    return {"source": data.source, "hash": digest({**what, **val}), "train": what, "val": val}


def same_shards(root: pathlib.Path, recorded: Mapping[str, Any]) -> shards.Shards:
    """The shards that a run began with, whatever has come since.

    A later shard could stand anywhere among them, and what was the last one would no longer
    validate: so those that came later are not read, and the order of the data stays as it was.

    Raises:
        ValueError: a training shard has changed or is gone; the message names it.
    """
    folder, train, val = root / recorded["source"], recorded["train"], recorded["val"]
    places = {name: folder / name for name in (*train, *val)}
    if gone := [name for name, path in places.items() if not path.exists()]:
        raise ValueError(
            f"{places[gone[0]]} is gone, and the run reads it ({len(gone)} of {len(places)} shards "
            "are missing); put it back, or get it again: python -m scripts.data download"
        )
    has_digest = [name for name, what in {**train, **val}.items() if what.startswith("sha256:")]
    now = manifest.identify(list(places.values()), has_digest)
    changed = [n for n, what in {**train, **val}.items() if not _same(places[n], what, now[n])]
    for name in changed:
        if name in val:
            # No step reads it. `data add` writes it anew whenever texts are added.
            log.warning("%s has changed: scores from here on are of other text", places[name])
        else:
            raise ValueError(
                f"{places[name]} has changed since the run began: {now[name][:19]}, it was "
                f"{train[name][:19]}; put that shard back, or begin anew without --resume"
            )
    if later := [p for p in shards.list_shards(folder) if p.name not in places]:
        log.info("%d shards that came after this run began are not part of it", len(later))
    return shards.Shards(
        tuple(places[name] for name in train), *(places[n] for n in val), source=recorded["source"]
    )


def _same(path: pathlib.Path, then: str, now: str) -> bool:
    kind, value = then.split(":")
    return path.stat().st_size == int(value) if kind == "bytes" else now == then


def micro_rows(meta: Mapping[str, Any]) -> int | None:
    """Rows of the micro-batches by which a run's data are dealt out and its losses averaged, from
    the `meta.json` of any of its checkpoints; None: it says nothing of it.

    They are the `device_batch_size` that the run began with. One that goes on with another computes
    the same rows in other passes.
    """
    recorded, config = meta.get("data") or {}, meta.get("config") or {}
    return recorded.get("micro_rows") or config.get("device_batch_size")


def new_shards(root: pathlib.Path, recorded: Mapping[str, Any]) -> tuple[Text, Text]:
    """What lies there now, and what did when a finished run read it, where it is not the same.

    A shard that is gone is not new, nor one of a set that was downloaded further: a run reads as
    many of those as it needs. Raises ValueError as `of_shards`.
    """
    folder = paths.data_in_use(root)
    if folder is None:
        return {}, {}
    if folder.name != recorded["source"]:
        return {"data": folder.name}, {"data": recorded["source"]}
    then, own = recorded["train"], (folder / shards.VAL_NAME).exists()
    there = {p.name: p for p in paths.shards(folder)[:-1] if own or p.name in then}
    has_digest = [name for name in there if then.get(name, "").startswith("sha256:")]
    now = manifest.identify(list(there.values()), has_digest) if there else {}
    new = [n for n, path in there.items() if n not in then or not _same(path, then[n], now[n])]
    return {f"data {n}": now[n] for n in new}, {f"data {n}": then[n] for n in new if n in then}


def new_files(
    files: Sequence[pathlib.Path], root: pathlib.Path, recorded: Mapping[str, Any]
) -> tuple[Text, Text]:
    """The same of the files of a mixture."""
    now, then = _digests(files, root), recorded.get("files")
    if then is None:  # of an earlier version
        return {}, {}
    new = [name for name in now if now[name] != then.get(name)]
    return {f"data {n}": now[n] for n in new}, {f"data {n}": then[n] for n in new if n in then}


def digest_of(meta: Mapping[str, Any]) -> str | None:
    """A digest of the data that a checkpoint's `meta.json` tells of; None: it tells of none."""
    data = meta.get("data")
    return digest({k: v for k, v in data.items() if k != "micro_rows"}) if data else None


def told(meta: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """What a checkpoint's `meta.json` says of the data of its stage, as (what, value), for people;
    nothing of a model that was trained elsewhere."""
    data = meta.get("data") or {}
    if "tasks" in data:
        return [(f"rows of {name}", rows) for name, rows in data["tasks"]]
    if "train" not in data:
        return []
    return [("folder", data["source"]), ("training shards", len(data["train"])),
            ("digest of all shards", data["hash"])]  # fmt: skip


def of_mixture(
    mixture: Mixture, files: Sequence[pathlib.Path], root: pathlib.Path
) -> dict[str, Any]:
    """The tasks of a mixture in their order, as JSON: name and number of rows of each; and the
    digests of the files that they were read from."""
    return {**_rows(mixture), "files": _digests(files, root)}


def _rows(mixture: Mixture) -> dict[str, Any]:
    return {"tasks": [[task.name, len(task)] for task in mixture.tasks]}


def _digests(files: Sequence[pathlib.Path], root: pathlib.Path) -> Text:
    inside = lambda path: path.is_relative_to(root)
    # A folder of task files may lie elsewhere on another machine.
    name = lambda p: p.relative_to(root).as_posix() if inside(p) else "/".join(p.parts[-2:])
    return {name(path): f"sha256:{manifest.sha256(path)}" for path in files}


def check_mixture(mixture: Mixture, recorded: Mapping[str, Any]) -> None:
    """Raises ValueError unless the tasks have as many rows as when the run began: a position in a
    mixture is a number of its shuffled order."""
    then, now = recorded["tasks"], _rows(mixture)["tasks"]
    if now != then:
        say = lambda tasks: ", ".join(f"{name} {rows:,}" for name, rows in tasks)
        raise ValueError(
            f"the mixture has changed since the run began: {say(now)} rows, it was {say(then)}; "
            "put the rows back, or begin anew without --resume"
        )
