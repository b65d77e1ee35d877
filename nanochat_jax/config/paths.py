"""The names on disk, nanochat's own: every place below the base directory is named here alone.

The original's names, so that its users find things where they are used to find them.
"""

import errno
import os
import pathlib
import re
from collections.abc import Callable

from nanochat_jax.files import recover_folder, recover_folders

CHECKPOINTS = {
    "base": "base_checkpoints", "mid": "mid_checkpoints",
    "sft": "chatsft_checkpoints", "rl": "chatrl_checkpoints",
}  # fmt: skip
WORLD_DATA = "world_data"


def base_dir() -> pathlib.Path:
    """Where everything lies: `$NANOCHAT_BASE_DIR`, else `~/.cache/nanochat_jax`."""
    return pathlib.Path(os.environ.get("NANOCHAT_BASE_DIR") or "~/.cache/nanochat_jax").expanduser()


def check_tag(flag: str, name: str) -> None:
    """Raises ValueError for a name that is no folder's; empty is none, and fine."""
    if name and (pathlib.PurePath(name).name != name or name.startswith(".")):
        raise ValueError(f"{flag} is {name!r}; expected the name of a folder, such as d20: no "
                         "slash, no dot in front")  # fmt: skip


def writable_base_dir() -> pathlib.Path:
    """The base directory, made if it is missing, for programs that write there.

    Raises:
        ValueError: it cannot be made or written to.
    """
    root = base_dir()
    try:
        root.mkdir(parents=True, exist_ok=True)
        if not os.access(root, os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, "not writable for this user")
    except OSError as error:
        raise ValueError(
            f"the base directory {root}, where data and models are kept, cannot be used: "
            f"{error.strerror}; type export NANOCHAT_BASE_DIR=FOLDER with a folder of your own"
        ) from None
    return root


def _below(name: str) -> Callable[[pathlib.Path], pathlib.Path]:
    return lambda root: root / name


base_data = _below("base_data")  # pretraining shards, downloaded or the user's own
world_data = _below(WORLD_DATA)  # the embedded world, written while `base_data/` is empty
identity = _below("identity_conversations.jsonl")  # in which the model says who it is
words = _below("words_alpha.txt")  # the word list that spelling is made of
tokenizer = _below("tokenizer")  # the one that new base models begin with
pushes = _below("push")  # what goes, or went, to the Hugging Face hub
eval_bundle = _below("eval_bundle")  # the tasks of CORE
evaluations = _below("eval")  # a folder of answers for each evaluation
report = _below("report")  # what stages and evaluations found, and the report made of it
compilation_cache = _below("jax_cache")  # compiled programs, kept from run to run
loading_times = _below("loading_times.json")  # seconds that models took to load for a chat


def data_in_use(root: pathlib.Path) -> pathlib.Path | None:
    """The folder of shards to train on; None where there are none.

    The user's own come first: the embedded world is for those who have no data.
    """
    recover_folder(world_data(root))
    return next((folder for folder in (base_data(root), world_data(root)) if shards(folder)), None)


def shards(folder: pathlib.Path) -> list[pathlib.Path]:
    """The parquet files of a folder by name, `.PARQUET` too; none if there is no folder."""
    found = folder.glob("*") if folder.is_dir() else ()
    return sorted(path for path in found if _is_parquet(path) and not is_hidden(path))


def hidden_shards(folder: pathlib.Path) -> list[pathlib.Path]:
    """What `shards` leaves out: macOS puts a `._a.parquet` beside each on many drives."""
    found = folder.glob(".*") if folder.is_dir() else ()
    return sorted(filter(_is_parquet, found))


def is_hidden(path: pathlib.Path) -> bool:
    return path.name.startswith(".")


def _is_parquet(path: pathlib.Path) -> bool:
    # A link to nothing is one: what is missing must be told, not passed over.
    return path.suffix.lower() == ".parquet" and not path.is_dir()


def conversations(root: pathlib.Path, split: str) -> pathlib.Path:
    """The user's own chats of one split, `train` or `val`."""
    return root / "conversations" / f"{split}.jsonl"


def world_conversations(root: pathlib.Path, name: str) -> pathlib.Path:
    """The embedded world's chats: `mid`, `sft` or `val`."""
    return world_data(root) / f"conversations_{name}.jsonl"


def checkpoints(root: pathlib.Path, stage: str) -> pathlib.Path:
    """A folder for each model tag of a stage."""
    return root / CHECKPOINTS[stage]


def answers(root: pathlib.Path, run: str) -> pathlib.Path:
    """Every question of an evaluation with its answer and grade, from which it can continue."""
    return evaluations(root) / run


def steps(directory: pathlib.Path) -> list[int]:
    """The steps saved in a checkpoint directory, ascending."""
    if not directory.is_dir():
        return []
    recover_folders(directory)  # of a step that was saved again, and killed at the wrong moment
    found = (p for p in directory.iterdir() if p.name.isdigit() and (p / "meta.json").exists())
    return sorted(int(p.name) for p in found)


def guess_tag(folder: pathlib.Path) -> str | None:
    """The tag `d<number>` of the largest number, else the one changed last; None if none."""
    tags = [p for p in folder.iterdir() if steps(p)] if folder.is_dir() else []
    deep = [(int(m[1]), p.name) for p in tags if (m := re.match(r"d(\d+)", p.name))]
    if deep:
        return max(deep)[1]
    return max(tags, key=lambda p: p.stat().st_mtime).name if tags else None
