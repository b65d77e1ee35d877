"""What `--help` shows: the settings by what they are about, each with its default said once.

The text of a setting is the comment or the string that stands at it in its dataclass. The table of
groups also says which settings are rare: those wait for `--help-all`.
"""

import ast
import dataclasses
import functools
import inspect
import shutil
import textwrap
import tokenize
import typing
from collections.abc import Mapping, Sequence
from io import StringIO
from typing import Any

from nanochat_jax.config.typed import HELP, flag_of
from nanochat_jax.config.values import fields, flat

# Group -> (settings, rare settings). A program shows those that it knows; what stands nowhere here
# comes last, under "Other".
GROUPS: dict[str, tuple[str, str]] = {
    "What to run": (
        "config recipe source model_tag step init resume fresh rl download",
        "resume_from_step",
    ),
    "Model": (
        "depth max_seq_len",
        "aspect_ratio head_dim reference_kv_heads window_pattern vocab_size digits pattern int8",
    ),
    "Data": (
        "mixture num_epochs task_data embedded_world max_chars num_shards",
        "val_mixture doc_cap loader loader_ranks packing",
    ),
    "How long": ("num_iterations target_param_data_ratio", "target_flops"),
    "Batch and memory": (
        "device_batch_size total_batch_size target_examples_per_step examples_per_step num_samples "
        "batch_size mesh device_type",
        "attention remat fp8 dtype reduce_dtype simulate_devices",
    ),
    "Chat": ("prompt system max_tokens", ""),
    "Server": (
        "port host num_gpus api_key rate_limit",
        "slots queue model_name api_key_file allowed_host forwarded_allow_ips cors_origin notice "
        "drain",
    ),
    "Sampling": (
        "temperature top_k top_p min_p repetition_penalty max_new_tokens",
        "presence_penalty frequency_penalty learn_stop share_first_token",
    ),
    "Optimizer": (
        "embedding_lr unembedding_lr matrix_lr weight_decay init_lr_frac warmup_ratio "
        "warmdown_ratio",
        "scalar_lr smear_lr weight_decay_on embedding_weight_decay unembedding_weight_decay "
        "value_embed_weight_decay resid_weight_decay adam_beta1 x0_beta1 embedding_beta2 "
        "unembedding_beta2 scalar_beta2 adam_eps muon muon_steps muon_dtype muon_equalize_rows "
        "muon_renormalize muon_beta2 momentum_start momentum momentum_steps momentum_end "
        "lr_schedule warmup_steps final_lr_frac weight_decay_schedule grad_clip horizon_params "
        "scale_to_batch load_optimizer on_nan",
    ),
    "Adapters": ("lora_rank", "lora_optimizer lora_lr"),
    "Evaluation": (
        "tasks max_problems controls eval_every eval_metrics_every core_metric_every sample_every",
        "eval_tokens eval_steps eval_metrics_tasks eval_metrics_max_problems chatcore_max_sample "
        "core_metric_max_per_task sample_prompts eval_examples eval_samples split_tokens strict",
    ),
    "Checkpoints and logs": ("save_every keep run", "seed"),
    "Several machines": ("", "coordinator num_processes process_id"),
}
WIDTH = 100
COLUMN = 30  # where the texts begin


def text(cls: type, default: Any, prog: str, *, everything: bool = False) -> str:
    """The help of a program. `default`: the config that holds where nothing is typed."""
    parts = [
        f"usage: python -m {prog} [flags]",
        inspect.cleandoc(cls.__doc__ or ""),
        *_from_file(default),
    ]
    rare = False
    for title, names in groups(cls).items():
        lines = [_line(cls, name, flat(default)) for name in names[0] + names[1] * everything]
        rare |= bool(names[1])
        parts += ["\n".join([f"{title}:", *lines])] if lines else []
    more = "  --help-all" + " " * (COLUMN - 12) + "also the flags that few need"
    return "\n\n".join(parts + ([more] if rare and not everything else [])) + "\n"


def asked(argv: Sequence[str], cls: type, default: Any, prog: str) -> None:
    """Shows the help of a program and ends it, where that was asked for."""
    if HELP & {*argv}:
        print(text(cls, default, prog, everything="--help-all" in argv), end="")
        raise SystemExit(0)


def of_choices(choices: Mapping[str, type], usage: str, description: str, rest: str) -> str:
    """The help of a program that does one of several things: a line for each."""
    first = {
        name: inspect.cleandoc(cls.__doc__ or "").split("\n")[0] for name, cls in choices.items()
    }
    lines = [f"  {name:11}{said}" for name, said in first.items()]
    return "\n".join([f"usage: python -m {usage}", "", description, *lines, "", rest])


def groups(cls: type) -> dict[str, tuple[list[str], list[str]]]:
    """Group -> (settings, rare ones) of a program, in order."""
    known = list(fields(cls))
    found = {
        title: tuple([name for name in names.split() if name in known] for names in both)
        for title, both in GROUPS.items()
    }
    grouped = {name for both in found.values() for names in both for name in names}
    return found | {"Other": ([name for name in known if name not in grouped], [])}


def _from_file(default: Any) -> list[str]:
    if not getattr(default, "config", ""):
        return []
    recipe = f" and of the recipe {default.recipe!r}" if hasattr(default, "recipe") else ""
    return [f"Defaults are those of {_short(default.config)}{recipe}."]


def _short(path: str) -> str:
    return "/".join(path.rsplit("/", 2)[-2:]) if "/configs/" in path else path


def _line(cls: type, name: str, defaults: Mapping[str, Any]) -> str:
    """A setting: how it is typed, what it means, and its default unless the text tells that."""
    field, value, said = fields(cls)[name], defaults[name], help_of(cls, name)
    flag = (
        flag_of(name)
        if value is not True or field.type is not bool
        else f"--no-{flag_of(name)[2:]}"
    )
    typed = ", ".join([*(a for a in field.aliases if len(a) == 2), flag]) + _metavar(field.type)
    shown = "" if name == "config" else _default(value, said)
    width = min(shutil.get_terminal_size((WIDTH, 24)).columns, WIDTH) - COLUMN
    lines = textwrap.wrap(said + shown, max(width, 30), break_on_hyphens=False)
    first = f"  {typed}".ljust(COLUMN - 1) + " "
    if len(first) > COLUMN:
        return "\n".join([first.rstrip(), *(" " * COLUMN + line for line in lines)])
    return ("\n" + " " * COLUMN).join([first + (lines or [""])[0], *lines[1:]])


def _default(value: Any, said: str) -> str:
    # A switch is off, and what is empty or -1 has its meaning in the text.
    if isinstance(value, bool) or value in ("", (), None) or "(default:" in said:
        return ""
    if value == -1 or (value == 0 and f"{value:g}:" in said):
        return ""
    if isinstance(value, tuple):
        value = " ".join(value) if len(" ".join(value)) < 120 else f"{len(value)} of them"
    return f" (default: {value})"


def _metavar(hint: Any) -> str:
    if hint is bool:
        return ""
    if typing.get_origin(hint) is typing.Literal:
        return " " + "|".join(str(each) for each in typing.get_args(hint) if each != "")
    return {int: " N", float: " X", str: " TEXT"}.get(hint, " ...")


@functools.cache
def help_of(cls: type, name: str) -> str:
    """The comment or string that stands at a setting in its dataclass, or in one above it."""
    for owner in _owners(cls):
        if name in owner.__dict__.get("__annotations__", {}) and (said := _texts(owner).get(name)):
            return said
    return ""


def _owners(cls: type) -> list[type]:
    """The dataclass, those it inherits from, and those it holds."""
    held = [hint for hint in typing.get_type_hints(cls).values() if dataclasses.is_dataclass(hint)]
    return [c for c in (*cls.__mro__, *held) if dataclasses.is_dataclass(c)]


@functools.cache
def _texts(cls: type) -> dict[str, str]:
    """Setting -> its text, of those that a class itself declares."""
    source = textwrap.dedent(inspect.getsource(cls))
    body = next(node for node in ast.parse(source).body if isinstance(node, ast.ClassDef)).body
    tokens = tokenize.generate_tokens(StringIO(source).readline)
    comments = {t.start[0]: t.string.lstrip("# ") for t in tokens if t.type == tokenize.COMMENT}
    comments = {line: said for line, said in comments.items() if not said.startswith("fmt:")}
    found = {}
    for node, after in zip(body, [*body[1:], None], strict=True):
        if isinstance(node, ast.AnnAssign):
            below = isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant)
            said = after.value.value if below else comments.get(node.end_lineno, "")
            found[node.target.id] = " ".join(said.replace("`", "").split())
    return found
