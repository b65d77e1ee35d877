"""What was typed: whether each flag is one of the program's, and its value one of its kind."""

import contextlib
import dataclasses
import difflib
import io
import os
import re
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from nanochat_jax.config.values import fields

BAR = "--"
HELP = frozenset(("-h", "--help", "--help-all"))
ALL_FLAGS = "--help lists the flags"


def unbarred(argv: Sequence[str]) -> list[str]:
    """The arguments without a bare `--`, which torchrun's users type before a program's own."""
    argv = list(argv)
    if BAR in argv:
        argv.remove(BAR)
    return argv


def check(
    argv: Sequence[str], cls: type, *, words: bool = False,
    others: Mapping[str, type] = MappingProxyType({}),
) -> None:  # fmt: skip
    """Raises ValueError for a flag that the program does not know, naming the nearest or whose it
    is, or for a value that is none of its kind.

    tyro's own message for either is a box of several lines, and for a typo a page with every
    similar flag of every level.

    Args:
        words: the program takes other words than flags.
        others: programs of which the flag might be.
    """
    table, known = table_of(cls), fields(cls)
    for arg, values in _grouped(argv, table):
        if not arg:
            if values and not words:
                raise ValueError(f"{values[0]!r} is no flag; {ALL_FLAGS}")
        elif (name := table.get(key_of(arg))) is None:
            raise ValueError(_unknown(arg, table, others))
        elif name in known:
            _check_values(arg.split("=", 1)[0], values, known[name].type, words)


def _grouped(argv: Sequence[str], table: Mapping[str, str]) -> list[tuple[str, list[str]]]:
    """(flag, what follows it) in order; what stands before the first flag is after an empty one."""
    found: list[tuple[str, list[str]]] = [("", [])]
    for arg in argv:
        if arg.startswith("--") and arg != BAR or key_of(arg) in table:
            found.append((arg, [arg.split("=", 1)[1]] if "=" in arg else []))
            if not arg.startswith("--") and len(arg) > 2:
                found[-1] = arg[:2], [arg[2:].removeprefix("=")]
        else:
            found[-1][1].append(arg)
    return found


def _unknown(arg: str, table: Mapping[str, str], others: Mapping[str, type]) -> str:
    flag, key = arg.split("=", 1)[0], key_of(arg)
    if known := [name for name, other in others.items() if key in table_of(other)]:
        setting = table_of(others[known[0]])[key]
        return (
            f"unknown flag {flag} here; it is one of {', '.join(known)}: write {setting} = ... "
            f"under [{known[0]}] in a file for --config ({ALL_FLAGS})"
        )
    hint = _nearest_flag(key, table) or _nearest_flag(key, *map(table_of, others.values()))
    return f"unknown flag {flag}{hint} ({ALL_FLAGS})"


def _nearest_flag(key: str, *tables: Mapping[str, str]) -> str:
    long = {key.removeprefix("--") for table in tables for key in table if key.startswith("--")}
    close = difflib.get_close_matches(key.removeprefix("--"), sorted(long), n=1, cutoff=0.5)
    return f"; did you mean --{close[0]}?" if close else ""


def _check_values(flag: str, values: Sequence[str], hint: Any, words: bool) -> None:
    """Raises ValueError unless the values of a flag can be of the type of its setting."""
    if hint is bool:
        if values and not words:
            raise ValueError(f"{flag} takes no value; leave {values[0]!r} out ({ALL_FLAGS})")
        return
    if typing.get_origin(hint) is tuple:
        return
    if isinstance(hint, types.UnionType) and types.NoneType in typing.get_args(hint):
        hint = typing.get_args(hint)[0]  # where it is typed it is no None
    if not values:
        raise ValueError(f"{flag} has no value; expected {_expected(hint)}")
    if not _can_be(values[0], hint):
        raise ValueError(f"{flag} is {values[0]!r}; expected {_expected(hint)}")
    if len(values) > 1 and not words:
        raise ValueError(f"{flag} takes one value; got {' '.join(values)!r} ({ALL_FLAGS})")


def _can_be(text: str, hint: Any) -> bool:
    if typing.get_origin(hint) is typing.Literal:
        return text in typing.get_args(hint) or text in map(str, typing.get_args(hint))
    if hint not in (int, float):
        return True
    try:
        hint(text)
    except ValueError:
        return False
    return True


def _expected(hint: Any) -> str:
    """What a value should be, in words."""
    if typing.get_origin(hint) is typing.Literal:
        return f"one of {', '.join(str(each) for each in typing.get_args(hint) if each != '')}"
    return {int: "a whole number", float: "a number"}.get(hint, "a value")


@contextlib.contextmanager
def one_line(argv: Sequence[str], cls: type) -> Iterator[None]:
    """What tyro says in a box of a wrong value is raised as a ValueError of one line."""
    if HELP & set(argv):
        yield
        return
    said, width = io.StringIO(), os.environ.get("COLUMNS")
    os.environ["COLUMNS"] = "4000"  # so that the box breaks no line
    try:
        with contextlib.redirect_stderr(said):
            yield
    except SystemExit:
        raise ValueError(_as_typed(_in_box(said.getvalue()), cls)) from None
    finally:
        os.environ.pop("COLUMNS")
        os.environ |= {} if width is None else {"COLUMNS": width}


def _in_box(text: str) -> str:
    """What stands in the first part of a box of tyro's, in one line."""
    lines = [line.strip(" \u2502\u256d\u256e\u2570\u256f") for line in text.splitlines()[1:]]
    lines = lines if lines and lines[0].strip("-\u2500") else lines[1:]
    rules = (i for i, line in enumerate(lines) if not line.strip("-\u2500"))
    return " ".join(" ".join(lines[: next(rules, len(lines))]).split())


def _as_typed(line: str, cls: type) -> str:
    """A line of tyro's about a setting, which it is called by its flag in."""
    line = re.sub(r"^Error parsing [\w-]+: ", "", line)
    line = re.sub(r"^Missing from [\w. ]+: ", "missing: ", line)
    name, is_, rest = line.partition(" is ")
    known = fields(cls) if dataclasses.is_dataclass(cls) else {}
    return f"{flag_of(name)} is {rest}" if is_ and name in known else line


def table_of(cls: type) -> Mapping[str, str]:
    """Every spelling of every flag, with dashes, and the name of its setting."""
    # Dashes and underscores are the same to tyro, so one spelling is enough to look names up.
    table = dict.fromkeys(HELP, "help")
    for name, field in fields(cls).items():
        dashed = name.replace("_", "-")
        table |= {key: name for key in (f"--{dashed}", f"--no-{dashed}", *field.aliases)}
    return table


def key_of(arg: str) -> str:
    """The flag of an argument: `--depth` of `--depth=4`, `-g` of `-gmine`."""
    if arg.startswith("--"):
        return arg.split("=", 1)[0].replace("_", "-")
    # tyro takes a value that touches a short flag; no long flag can be meant by one dash.
    return arg[:2] if arg.startswith("-") else arg


def flag_of(name: str) -> str:
    """How a setting is typed."""
    return f"--{name.replace('_', '-')}"
