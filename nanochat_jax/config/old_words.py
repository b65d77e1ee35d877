"""The original's commands, flags and modules, each with ours: the table its words answer from.

`python -m scripts.base_train -- --depth=20` says what it is called here and runs that; what has no
counterpart says why, and what to type. `docs/coming-from-nanochat.md` shows the same table. Source:
nanochat of October 2025 and of July 2026.
"""

from __future__ import annotations

import dataclasses
import importlib.abc
import importlib.util
import os
import shlex
import sys
import typing

from nanochat_jax.config.typed import unbarred


@dataclasses.dataclass(frozen=True)
class Command:
    """A program of the original.

    Args:
        ours: what it is here; empty: nothing, and `note` says what to type.
        other: its flags of another name, with ours; the rest are called the same.
        gone: those that have no counterpart, with the reason.
        note: what differs.
    """

    ours: str
    other: dict[str, str] = dataclasses.field(default_factory=dict)
    gone: dict[str, str] = dataclasses.field(default_factory=dict)
    note: str = ""


COMMANDS = {
    "nanochat.dataset": Command("scripts.data download"),
    "scripts.tok_train": Command(
        "scripts.train --stage tokenizer",
        note="`tokenizer.json` instead of a pickle",
    ),
    "scripts.tok_eval": Command("scripts.eval -i tokenizer"),
    "scripts.base_train": Command(
        "scripts.train --stage base",
        gone={"fp8-recipe": "`--fp8` scales whole tensors, as the original's only one that runs"},
        note="the July defaults: `--recipe current`",
    ),
    "scripts.base_loss": Command("scripts.eval -i base -a bpb", other={"model-step": "step"}),
    "scripts.base_eval": Command(
        "scripts.eval -i base",
        other={"eval": "tasks", "max-per-task": "max-problems"},
        gone={
            "hf-path": "bring the model in first: "
            "`python -m scripts.convert import --format huggingface --dir DIR`"
        },
        note="October's is `-a core`; scores in `report/` and `eval/`, its table in `base_eval/`",
    ),
    "scripts.mid_train": Command(
        "scripts.train --stage mid",
        gone={"dry-run": "a run always saves; try one under another name: `--model-tag try`"},
        note="`--num-iterations` counts optimizer steps, not micro-batches",
    ),
    "scripts.chat_sft": Command(
        "scripts.train --stage sft",
        other={"model-step": "step"},
        gone={
            "mmlu-epochs": "say it in the mixture: `--mixture SmolTalk MMLU:auxiliary_train*3`",
            "gsm8k-epochs": "say it in the mixture: `--mixture SmolTalk GSM8K*4`",
        },
        note="the July way, from base and packed: `--recipe current`",
    ),
    "scripts.chat_rl": Command("scripts.train --stage rl", other={"model-step": "step"}),
    "scripts.chat_eval": Command(
        "scripts.eval",
        note="probabilities and choices: the same; tasks may also be joined by commas",
    ),
    "nanochat.report": Command("scripts.report"),
    "scripts.infer_bench": Command(
        "",
        note="speed of decoding: `python bench/decode.py`; of a server: `python bench/serve.py`",
    ),
}
# Modules that people's programs import, and what to write instead.
MODULES = {
    "nanochat.checkpoint_manager": "from nanochat_jax.checkpoint import load_model",
    "nanochat.engine": "from nanochat_jax.serve.engine import Engine",
    "nanochat.tokenizer": "from nanochat_jax.tokenizer import Tokenizer",
    "nanochat.gpt": "from nanochat_jax.models.gpt import GPT",
    "nanochat.common": "from nanochat_jax.config.paths import base_dir",
}
MESHED = ("scripts.train", "scripts.eval")  # these take --mesh; torchrun says how many it started
DOCUMENT = "docs/coming-from-nanochat.md"


def translated(name: str, argv: typing.Sequence[str]) -> list[str]:
    """Our module and its arguments for a command of the original.

    Raises:
        ValueError: a flag, or the whole command, has no counterpart; the message says what has.
    """
    command = COMMANDS[name]
    if not command.ours:
        raise ValueError(f"{name} is not here; {command.note.replace('`', '')}")
    out, gone = command.ours.split(), []
    for arg in unbarred(argv):
        flag, is_, value = arg.partition("=")
        key = flag[2:].replace("_", "-") if flag.startswith("--") else ""
        if key in command.gone and value == "0":  # not asked for
            continue
        if key in command.gone:
            gone.append(f"{flag}: {command.gone[key].replace('`', '')}")
        elif key in command.other:
            out.append(f"--{command.other[key]}{is_}{value}")
        elif not flag.startswith("-") and is_ == "" and flag.endswith(".py"):
            gone.append(f"{flag}: settings are a TOML file here: --config FILE (configs/ has some)")
        else:
            out.append(arg)
    if gone:
        raise ValueError(
            f"{name} is now {shlex.join(['python', '-m', *command.ours.split()])}, but "
            + "; ".join(gone)
            + f" ({DOCUMENT})"
        )
    return out


def run(name: str) -> None:
    """Says what a command of the original is called here, and becomes that."""
    try:
        new = translated(name, sys.argv[1:])
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    devices = os.environ.pop("LOCAL_WORLD_SIZE", "")
    if devices and new[0] in MESHED and "tokenizer" not in new:
        new += ["--mesh", devices]
    print(f"{name} is now: {shlex.join(['python', '-m', *new])}", file=sys.stderr, flush=True)
    os.execv(sys.executable, [sys.executable, "-m", *new])


class Answer(importlib.abc.InspectLoader):
    """Finds the original's modules, and answers where they are run or imported."""

    def find_spec(self, name: str, path: object = None, target: object = None) -> object:
        known = name in COMMANDS or name in MODULES
        return importlib.util.spec_from_loader(name, self) if known else None

    def get_source(self, name: str) -> str:
        if name in COMMANDS:
            return f"from nanochat_jax.config import old_words\nold_words.run({name!r})\n"
        said = f"{name} is nanochat's; write: {MODULES[name]} ({DOCUMENT})"
        return f"raise ImportError({said!r})\n"


def install() -> None:
    """From here on the original's modules are found."""
    if not any(isinstance(finder, Answer) for finder in sys.meta_path):
        sys.meta_path.append(Answer())
