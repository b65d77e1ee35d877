"""The names on disk, nanochat's own: every place below the base directory is named here alone."""

import os
import pathlib

from nanochat_jax.files import recover_folder

# The original's names, so that its users find things where they are used to find them.
CHECKPOINTS = {
    "base": "base_checkpoints",
    "mid": "mid_checkpoints",
    "sft": "chatsft_checkpoints",
    "rl": "chatrl_checkpoints",
}
BASE_DATA, WORLD_DATA = "base_data", "world_data"
TOKENIZER = "tokenizer"


def base_dir() -> pathlib.Path:
    """Where everything lies: `$NANOCHAT_BASE_DIR`, else `~/.cache/nanochat_jax`."""
    return pathlib.Path(os.environ.get("NANOCHAT_BASE_DIR") or "~/.cache/nanochat_jax").expanduser()


def base_data(root: pathlib.Path) -> pathlib.Path:
    """Pretraining shards, downloaded or the user's own."""
    return root / BASE_DATA


def world_data(root: pathlib.Path) -> pathlib.Path:
    """The embedded world, written by the tokenizer stage while `base_data/` is empty."""
    return root / WORLD_DATA


def data_in_use(root: pathlib.Path) -> pathlib.Path | None:
    """The folder of shards to train on; None where there are none.

    The user's own come first: the embedded world is for those who have no data.
    """
    recover_folder(world_data(root))
    folders = (base_data(root), world_data(root))
    return next((folder for folder in folders if any(folder.glob("*.parquet"))), None)


def conversations(root: pathlib.Path, split: str) -> pathlib.Path:
    """The user's own chats of one split, `train` or `val`."""
    return root / "conversations" / f"{split}.jsonl"


def world_conversations(root: pathlib.Path, name: str) -> pathlib.Path:
    """The embedded world's chats: `mid`, `sft` or `val`."""
    return world_data(root) / f"conversations_{name}.jsonl"


def identity(root: pathlib.Path) -> pathlib.Path:
    """Conversations in which the model says who it is."""
    return root / "identity_conversations.jsonl"


def words(root: pathlib.Path) -> pathlib.Path:
    """The word list that spelling is made of."""
    return root / "words_alpha.txt"


def tokenizer(root: pathlib.Path) -> pathlib.Path:
    """The tokenizer that new base models begin with."""
    return root / TOKENIZER


def checkpoints(root: pathlib.Path, stage: str) -> pathlib.Path:
    """A folder for each model tag of a stage."""
    return root / CHECKPOINTS[stage]


def eval_bundle(root: pathlib.Path) -> pathlib.Path:
    """The tasks of CORE."""
    return root / "eval_bundle"


def answers(root: pathlib.Path, run: str) -> pathlib.Path:
    """Every question of an evaluation with its answer and grade, from which it can continue."""
    return root / "eval" / run


def report(root: pathlib.Path) -> pathlib.Path:
    """What stages and evaluations found, and the report made of it."""
    return root / "report"


def compilation_cache(root: pathlib.Path) -> pathlib.Path:
    """Compiled programs, kept from run to run."""
    return root / "jax_cache"
