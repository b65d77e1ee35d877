"""Defaults, then the recipe, then a TOML file, then flags: one frozen config per program.

A TOML file holds only what differs from the defaults: keys at its top go to every program that
knows them, a table such as `[base]` to that program alone.
"""

import contextlib
import dataclasses
import difflib
import errno
import hashlib
import json
import pathlib
import sys
import tomllib
import typing
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeVar

import tyro

Config = TypeVar("Config")

# Keys that belong to one call, not to a run.
PER_CALL = frozenset("resume resume_from_step init run device_type mesh simulate_devices".split())

# Keys that do not change what a stage computes, so they do not make a finished one stale.
COSMETIC = frozenset(
    "config resume resume_from_step init run device_type mesh simulate_devices log_every "
    "sample_every save_every eval_every eval_steps eval_tokens core_metric_every "
    "core_metric_max_per_task fresh eval_metrics_every eval_metrics_max_problems price "
    "eval_metrics_tasks chatcore_max_sample eval_examples eval_samples "
    "task_data".split()
)


def load(
    cls: type[Config],
    argv: Sequence[str],
    *,
    section: str = "",
    sections: Mapping[str, type] | None = None,
    recipes: Mapping[str, Mapping[str, Any]] | None = None,
    default_file: pathlib.Path | None = None,
    prog: str | None = None,
    description: str | None = None,
    saved: Mapping[str, Any] | None = None,
    inherited: Mapping[str, Any] | None = None,
) -> Config:
    """A `cls` made of its defaults, `recipes[--recipe]`, `--config FILE` and the flags in `argv`.

    Args:
        section: the table of the TOML file that belongs to this program.
        sections: every table a file may hold and its config class, so that a typo is found.
        default_file: read when `--config` is not given.
        saved: values of an earlier run (flat), which stand in for recipe and file.
        inherited: values (flat) that stand above the recipe's and the default file's, and below
            those of a file that was named.

    Raises:
        ValueError: an unreadable file, an unknown key or a value of the wrong type.
        SystemExit: what tyro says of a wrong flag (2) or of `--help` (0).
    """
    argv = [str(arg) for arg in argv]
    check_flags(argv, cls)
    named = _peek(argv, "--config")
    if saved is not None:
        kept = {k: v for k, v in saved.items() if k in _paths(cls) and k not in PER_CALL}
        return tyro.cli(
            cls, args=argv, default=build(cls, kept), prog=prog, description=description
        )
    path = pathlib.Path(named) if named else default_file
    table = read_toml(path, sections or {section: cls}) if path else {}
    values = {**_shared(table, cls), **table.get(section, {})}
    inherited = inherited or {}
    if not named:
        values = {key: value for key, value in values.items() if key not in inherited}
    recipe = _peek(argv, "--recipe") or {**inherited, **values}.get("recipe")
    recipe = recipe or getattr(cls, "recipe", None)
    recipes = recipes if recipe else None
    if recipes and recipe not in recipes:
        raise ValueError(f"recipe is {recipe!r}; expected one of {', '.join(recipes)}")
    below = {**(recipes[recipe] if recipes else {}), **inherited}
    base = build(cls, {**below, **values}, where=str(path or ""))
    if path and "config" in _paths(cls):
        base = dataclasses.replace(base, config=str(path))
    return tyro.cli(cls, args=argv, default=base, prog=prog, description=description)


def read_toml(path: pathlib.Path, sections: Mapping[str, type]) -> dict[str, Any]:
    """The parsed file, every key of which some class in `sections` knows; else a ValueError."""
    try:
        table = tomllib.loads(path.read_text())
    except FileNotFoundError:
        near = sorted(str(p) for p in path.parent.glob("*.toml")) if path.parent.is_dir() else []
        raise ValueError(f"no config file {path}; found {', '.join(near) or 'none'}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not valid TOML: {error}") from None
    anywhere = {key for cls in sections.values() for key in _paths(cls)}
    for key, value in table.items():
        if isinstance(value, dict):
            _known(key, sections, f"{path}: unknown table [{key}]")
            for inner in value:
                _known(inner, _paths(sections[key]), f"{path}: unknown key {inner!r} in [{key}]")
        else:
            _known(key, anywhere, f"{path}: unknown key {key!r}")
    return table


def build(cls: type[Config], values: Mapping[str, Any], *, where: str = "") -> Config:
    """`cls` with `values` (flat names, also of nested dataclasses) over its defaults.

    Raises:
        ValueError: an unknown name (the nearest is named) or a value of the wrong type.
    """
    paths, flat = _paths(cls), dict(values)
    nested: dict[str, dict[str, Any]] = {}
    own: dict[str, Any] = {}
    for name, value in flat.items():
        _known(name, paths, f"{where or cls.__name__}: unknown key {name!r}")
        parent, hint = paths[name]
        checked = _checked(name, value, hint, where)
        (nested.setdefault(parent, {}) if parent else own)[name] = checked
    made = cls(**own)
    for parent, inner in nested.items():
        made = dataclasses.replace(
            made, **{parent: dataclasses.replace(getattr(made, parent), **inner)}
        )
    return made


def flatten(config: Any) -> dict[str, Any]:
    """The config as one flat dict of JSON values: nested dataclasses give their own fields."""
    out: dict[str, Any] = {}
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        out |= flatten(value) if dataclasses.is_dataclass(value) else {field.name: value}
    return json.loads(json.dumps(out))


def fingerprint(config: Any) -> dict[str, Any]:
    """What of a config decides the result of its stage: all but the cosmetic keys."""
    return {k: v for k, v in flatten(config).items() if k not in COSMETIC}


def digest(values: Mapping[str, Any]) -> str:
    """A short stable hash of JSON values."""
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:16]


@contextlib.contextmanager
def friendly_errors() -> Iterator[None]:
    """For programs: what a person can fix is printed as one message (exit 2), not a traceback.

    That is what our own code raises on purpose; an error from inside a library keeps its traceback.
    """
    try:
        yield
    except (ValueError, FileNotFoundError) as error:
        if not _is_ours(error):
            raise
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    except OSError as error:
        print(f"error: {_os_message(error)}", file=sys.stderr)
        raise SystemExit(1) from None


def _os_message(error: OSError) -> str:
    """What the system says, of which file; for a full disk, what to do about it."""
    said = ": ".join(filter(None, (error.strerror or str(error), str(error.filename or ""))))
    if error.errno != errno.ENOSPC or "disk full" in said:
        return said
    return (
        f"{said}; the disk is full: make room and type the same command again, it goes on after "
        "what was finished; or name a folder on another disk in $NANOCHAT_BASE_DIR"
    )


def _is_ours(error: BaseException) -> bool:
    """Whether the error was raised in this package or its programs."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    here = pathlib.Path(__file__).resolve().parents[1]
    raised = pathlib.Path(trace.tb_frame.f_code.co_filename) if trace else here
    return raised.is_relative_to(here) or raised.is_relative_to(here.parent / "scripts")


def nearest(name: str, known: Sequence[str]) -> str:
    """` (did you mean 'x'?)` for the closest known name, else the list of what is known."""
    close = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean {close[0]!r}?" if close else f"; known: {', '.join(sorted(known))}"


def _known(name: str, known: typing.Collection[str], message: str) -> None:
    if name not in known:
        raise ValueError(message + nearest(name, list(known)))


def check_flags(argv: Sequence[str], cls: type) -> None:
    """Raises ValueError for a long flag that the program does not know, naming the nearest."""
    known = {"help"} | {n for name in _paths(cls) for n in (name, f"no_{name}")} | _aliases(cls)
    for arg in argv:
        name = arg.split("=", 1)[0].removeprefix("--").replace("-", "_")
        if arg.startswith("--") and name and name not in known:
            close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
            hint = f"; did you mean --{close[0].replace('_', '-')}?" if close else ""
            raise ValueError(f"unknown flag {arg.split('=', 1)[0]}{hint} (--help lists all)")


def _aliases(cls: type) -> set[str]:
    """Long flags that are other names of a field."""
    hints = typing.get_type_hints(cls, include_extras=True).values()
    metadata = (m for hint in hints for m in getattr(hint, "__metadata__", ()))
    aliases = (a for m in metadata for a in getattr(m, "aliases", None) or ())
    return {a.removeprefix("--").replace("-", "_") for a in aliases if a.startswith("--")}


def _peek(argv: Sequence[str], flag: str) -> str | None:
    """The value of one flag, last one first, before the real parser sees the rest."""
    for i in reversed(range(len(argv))):
        if argv[i].startswith(flag + "="):
            return argv[i].split("=", 1)[1]
        if argv[i] == flag and i + 1 < len(argv):
            return argv[i + 1]
    return None


def _shared(table: Mapping[str, Any], cls: type) -> dict[str, Any]:
    return {k: v for k, v in table.items() if not isinstance(v, dict) and k in _paths(cls)}


def _paths(cls: type) -> dict[str, tuple[str, Any]]:
    """Flat field name -> (name of the nested dataclass or '', type)."""
    out: dict[str, tuple[str, Any]] = {}
    hints = typing.get_type_hints(cls)
    for field in dataclasses.fields(cls):
        hint = hints[field.name]
        if dataclasses.is_dataclass(hint):
            out |= {name: (field.name, inner) for name, (_, inner) in _paths(hint).items()}
        else:
            out[field.name] = ("", hint)
    return out


def _checked(name: str, value: Any, hint: Any, where: str) -> Any:
    """`value` as `hint` wants it: ints become floats, lists become tuples; else a ValueError."""
    options = typing.get_args(hint) if _is_union(hint) else (hint,)
    for option in options:
        origin = typing.get_origin(option)
        if option is float and isinstance(value, int) and not isinstance(value, bool):
            return float(value)
        if origin is tuple and isinstance(value, list | tuple):
            return tuple(value)
        if origin is typing.Literal and value in typing.get_args(option):
            return value
        if isinstance(option, type) and type(value) is option:
            return value
    wanted = getattr(hint, "__name__", None) or str(hint).replace("typing.", "")
    at = f"{where}: " if where else ""
    raise ValueError(f"{at}{name} is {value!r} ({type(value).__name__}); expected {wanted}")


def _is_union(hint: Any) -> bool:
    import types

    return typing.get_origin(hint) in (typing.Union, types.UnionType)
