"""Whether the Python that runs a program has what the programs need; told in one line if not.

Read by whatever Python was typed, so without any of those packages and in the syntax of old ones.
"""

from __future__ import annotations

import importlib.util
import pathlib
import signal
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
OLDEST = (3, 11)
# What every program begins with. What only some need is told by `friendly_errors` where it is
# missed: the environment of `make test-gpu` compiles without a server's packages.
NEEDED = (
    "tyro", "jax", "flax", "optax", "orbax", "grain", "numpy", "pyarrow", "tqdm", "tokenizers",
    "nanochat_jax._rustbpe",
)  # fmt: skip


def check() -> None:
    """Ends the program (2) with what to type, where this Python cannot run it."""
    # Until the program listens to it (`friendly_errors`), Ctrl-C ends it without a traceback of
    # what was being imported.
    if sys.argv[:1] == ["-m"] and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    if why := lack():
        print(f"error: {why}; type: {remedy()}", file=sys.stderr)
        raise SystemExit(2)


def lack() -> str:
    """What this Python lacks, in words; empty: nothing."""
    if sys.version_info < OLDEST:
        have, want = (".".join(map(str, each[:2])) for each in (sys.version_info, OLDEST))
        return f"this is Python {have} ({sys.executable}), and {want} or later is needed"
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if not missing:
        return ""
    more = f" and {len(missing) - 1} more are" if len(missing) > 1 else " is"
    return f"{missing[0]}{more} not installed for this Python ({sys.executable})"


def remedy() -> str:
    """What to type so that the same command runs: the environment of this folder has it all."""
    made = (ROOT / ".venv" / ".ready").exists()
    inside = pathlib.Path(sys.prefix).resolve() == (ROOT / ".venv").resolve()
    activate = "source .venv/bin/activate"
    steps = ["make setup"] if inside else [activate] if made else ["make setup", activate]
    elsewhere = pathlib.Path.cwd() != ROOT
    return " && ".join(([f"cd {ROOT}"] if elsewhere else []) + steps) + ", then the same again"
