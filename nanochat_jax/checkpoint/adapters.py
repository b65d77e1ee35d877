"""Where the weights lie that a checkpoint of adapters (LoRA) stands beside.

Its `meta.json` has `"lora": {"rank", "base": {"stage", "path", "digest"}}`. The digest decides: a
base that a newer run moved aside is found again by it, and other weights in its place are refused.
"""

import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

from nanochat_jax.checkpoint import manifest
from nanochat_jax.config import paths
from nanochat_jax.config.values import digest
from nanochat_jax.files import OLD

LORA = "lora"  # the key of `meta.json`


def weights_digest(folder: pathlib.Path, meta: Mapping[str, Any]) -> str:
    """A short digest of the weights of a step, those that its adapters stand beside included."""
    own = manifest.params_digest(folder)
    return digest({"own": own, "base": meta[LORA]["base"]["digest"]}) if LORA in meta else own


def record(rank: int, base: pathlib.Path, meta: Mapping[str, Any], path: str) -> dict[str, Any]:
    """What the `meta.json` of adapters says: their rank and the step that they were begun beside,
    with its `meta` and its `path` below the base directory, or in full where it lies elsewhere."""
    known = {"stage": meta["stage"], "path": path, "digest": weights_digest(base, meta)}
    return {LORA: {"rank": rank, "base": known}}


def base_of(folder: pathlib.Path, meta: Mapping[str, Any]) -> pathlib.Path:
    """The folder of the step whose weights the adapters in `folder` stand beside.

    Raises:
        FileNotFoundError: it is gone.
        ValueError: its weights are others now.
    """
    base, root = meta[LORA]["base"], _root(folder)
    wanted = (root / base["path"]).resolve()
    there = places(wanted, paths.checkpoints(root, base["stage"]))
    found = {path: digest_of(path) for path in there}
    match = next((path for path, got in found.items() if got == base["digest"]), None)
    if match is not None:
        return match
    begin = f"{folder} holds adapters (LoRA) for the weights in {wanted} (digest {base['digest']})"
    rank, stage = meta[LORA]["rank"], meta.get("stage", "sft")
    anew = (
        f"train the adapters anew: python -m scripts.train --stage {stage} --init CHECKPOINT "
        f"--model-tag {folder.parent.name} --lora-rank {rank}"
    )
    if (got := found.get(wanted)) is not None:
        raise ValueError(f"{begin}, but there are other weights there now (digest {got}); put the "
                         f"old ones back from a copy, or {anew}")  # fmt: skip
    raise FileNotFoundError(f"{begin}, and that checkpoint is gone, also from what was moved aside "
                            f"(python -m scripts.checkpoints list); put it back from a copy, or "
                            f"{anew}")  # fmt: skip


def places(wanted: pathlib.Path, runs: pathlib.Path) -> Iterator[pathlib.Path]:
    """Where a step may be: where it was, and the same step of every run in the folder `runs`, of
    those that were moved aside too."""
    yield wanted
    for pattern in (f"*/{wanted.name}", f"{OLD}/*/{wanted.name}"):
        yield from sorted(path.resolve() for path in runs.glob(pattern))


def _root(folder: pathlib.Path) -> pathlib.Path:
    """The base directory that a step lies in; the configured one for a step that lies elsewhere."""
    above = (p.parent for p in folder.resolve().parents if p.name in paths.CHECKPOINTS.values())
    return next(above, paths.base_dir())


def digest_of(folder: pathlib.Path) -> str | None:
    """Of a step's weights; None where there is no whole step."""
    try:
        return weights_digest(folder, manifest.meta(folder))
    except (OSError, ValueError):
        return None
