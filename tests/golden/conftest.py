"""Where the golden numbers lie, how to find their files, and the tolerances they are held to.

The numbers come from running the PyTorch original; `README.md` beside them says what each key
means. Without them the small part in `tests/data/golden` stands in (formulas, a tokenizer, a
checkpoint of each era), and what needs more is skipped. `$NANOCHAT_GOLDEN` names another set of
the same layout. Tests parametrise over what they find and read every size and name from the files,
so a new set needs no change here:

    from tests.golden.conftest import TOL, files

    @pytest.mark.parametrize("path", files("model_*.npz"))          # both eras
    @pytest.mark.parametrize("path", files("current/optim_traj_resume*.npz"))
"""

import functools
import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.needs import BESIDE, folder

ROOT = Path(__file__).resolve().parents[2]
ERAS = ("classic", "current")
# What the part in the repository must hold: a test of these can never be skipped.
KEPT_HERE, KEPT = ROOT / "tests" / "data" / "golden", ("checkpoint_", "formulas", "tokenizer_*")

TOL = {
    # model_*.npz, checkpoint_*/, generate_*.npz
    "logits": 1e-4,  # absolute
    "loss": 2e-5,  # absolute
    "grad": 1e-4,  # relative L2 per tensor
    "probs": 1e-5,  # absolute; distributions that the sampler draws from
    # optim_unit*.npz
    "optim_f32": 1e-4,  # relative L2
    "optim_bf16": 0.15,  # relative L2, unless the roundings are mimicked exactly
    # optim_traj_*.npz: losses (absolute), then final weights (relative L2 per tensor)
    "traj_loss_classic_f32": 1e-4,
    "traj_loss_classic_bf16": 3e-2,
    "traj_loss_current_early": 1e-4,  # steps 0 to 3
    "traj_loss_current": 5e-3,  # the steps after
    "traj_final_classic_f32": 1e-3,
    "traj_final_classic_bf16": 0.15,
    "traj_final_current": 3e-2,  # matrices and embeddings
    "traj_final_current_scalars": 1e-1,
    # the rest
    "core_loss": 1e-4,  # absolute
    "bpb": 1e-5,  # relative
    "task_logits": 1e-4,  # absolute
    "rl": 1e-4,  # absolute
    "formula": 1e-12,  # relative; integers are exact
}


def golden_root() -> Path:
    """The folder that holds `classic/` and `current/`: the whole set, or the part that is kept."""
    return folder("NANOCHAT_GOLDEN", BESIDE / "golden", KEPT_HERE)


def era_of(path: Path) -> str:
    """`classic` or `current`: the first folder of `path` below the golden root."""
    return path.relative_to(golden_root()).parts[0]


def beside(folder: Path, pattern: str) -> Path:
    """The file or folder in an era's folder that matches, the first where there are several."""
    found = sorted(folder.glob(pattern))
    assert found, f"no {pattern} in {folder}"
    return found[0]


def files(pattern: str) -> list:
    """Parameters (Path, id `era/stem`) of the files or folders that match, in a fixed order.

    `pattern` is a glob below an era's folder, or below the root if it begins with an era. A whole
    set, also one that `$NANOCHAT_GOLDEN` names, has to match all; the part in the repository what
    it is there for, and of anything else there is one parameter that skips and says why.
    """
    root = golden_root()
    in_one_era = pattern.split("/")[0] in ERAS
    globs = [pattern] if in_one_era else [f"{era}/{pattern}" for era in ERAS]
    by_glob = [sorted(root.glob(glob)) for glob in globs]
    kept = pattern.removeprefix("current/").startswith(KEPT)
    # A whole set has some kinds of one era alone; what is kept here is kept of both.
    there = all(by_glob) if kept and root == KEPT_HERE else any(by_glob)
    if not there and (kept or root != KEPT_HERE):
        raise pytest.UsageError(f"no golden file matches {pattern} in {root}, which must have it")
    if found := sorted(itertools.chain.from_iterable(by_glob)):
        return [pytest.param(p, id=_name(p.relative_to(root))) for p in found]
    reason = (
        f"no golden file matches {pattern} in {root}; set $NANOCHAT_GOLDEN to the folder that "
        "holds classic/ and current/"
    )
    return [pytest.param(None, id="absent", marks=pytest.mark.skip(reason=reason))]


def _name(relative: Path) -> str:
    return relative.with_suffix("").as_posix()


@functools.cache
def load_json(path: Path) -> Any:
    """The JSON of a golden file, read once per session; treat it as read-only."""
    return json.loads(path.read_text(encoding="utf-8"))


@functools.cache
def load_npz(path: Path) -> dict[str, Any]:
    """The arrays of a golden file by key; keys that end in `.json` come parsed. Read-only."""
    with np.load(path, allow_pickle=False) as data:
        return {k: _value(k, data[k]) for k in data.files}


def _value(key: str, array: np.ndarray) -> Any:
    return json.loads(str(array)) if key.endswith(".json") else array
