"""The tasks of ChatCORE by name, as far as their data are available."""

import pathlib
from collections.abc import Collection, Sequence

from nanochat_jax.evals import sandbox
from nanochat_jax.tasks import Task, build_one

# In the original's order, with what guessing scores in percent. Source: nanochat
# `scripts/chat_eval.py`, October 2025 (in July 2026 SpellingBee is gone). Four options are 25 %;
# what is written freely cannot be guessed.
BASELINES = {
    "ARC-Easy": 25.0, "ARC-Challenge": 25.0, "MMLU": 25.0,
    "GSM8K": 0.0, "HumanEval": 0.0, "SpellingBee": 0.0,
}  # fmt: skip


def named(names: Sequence[str], root: pathlib.Path, task_data: str | None) -> dict[str, Task]:
    """The tasks of those names, fetched where they are not here.

    Raises:
        FileNotFoundError: the data of one are not available.
        RuntimeError: HumanEval, and the sandbox does not work here.
    """
    return {name: _one(name, root, task_data, fetch=True) for name in names}


def at_hand(
    root: pathlib.Path, task_data: str | None = None, names: Collection[str] = tuple(BASELINES),
    *, fetch: bool = False,
) -> tuple[dict[str, Task], dict[str, str]]:  # fmt: skip
    """(those of the tasks that are available, in ChatCORE's order; name -> why another is not).

    `fetch`: from the Hugging Face hub where they are not in its cache.
    """
    found, skipped = {}, {}
    for name in (n for n in BASELINES if n in names):
        try:
            found[name] = _one(name, root, task_data, fetch=fetch)
        except (FileNotFoundError, RuntimeError) as error:
            skipped[name] = str(error)
    return found, skipped


def _one(name: str, root: pathlib.Path, task_data: str | None, *, fetch: bool) -> Task:
    if name == "HumanEval":
        sandbox.usable_layers()  # better now than after all answers are written
    return build_one(name, root, task_data=task_data, execute=sandbox.execute, fetch=fetch)
