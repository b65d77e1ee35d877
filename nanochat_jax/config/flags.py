"""The command line: which settings were typed, and their values. `tyro` reads them, once."""

import argparse
import difflib
import shlex
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import tyro

from nanochat_jax.config.values import fields, flat


def parse(argv: Sequence[str], default: Any, *, prog: str | None = None) -> dict[str, Any]:
    """The settings that `argv` names, with their typed values by flat name.

    Args:
        default: a config whose values `--help` shows.

    Raises:
        ValueError: an unknown flag; the message names the nearest.
        SystemExit: what tyro says of a wrong value (2) or of `--help` (0).
    """
    cls = type(default)
    check(argv, cls)
    shown = dict(prog=prog, description=cls.__doc__, config=(tyro.conf.OmitArgPrefixes,))
    parsed = tyro.cli(cls, args=argv, default=default, **shown)
    # tyro gives whole configs and does not say which fields were typed. A flag that repeats a
    # default must still win over what a parent checkpoint says, so the names come from `argv`.
    table = _table(cls)
    typed = {table[key] for key in map(_key, argv) if key in table}
    return {name: value for name, value in flat(parsed).items() if name in typed}


def command(commands: Mapping[str, type], argv: Sequence[str], **shown: Any) -> Any:
    """The config of the command that `argv` begins with; `shown` is tyro's `prog`, `description`.

    Raises as `parse`.
    """
    if argv and argv[0] in commands:
        check(argv[1:], commands[argv[0]])
    return tyro.extras.subcommand_cli_from_dict(commands, args=argv, **shown)


def check(argv: Sequence[str], cls: type) -> None:
    """Raises ValueError for a long flag that the program does not know, naming the nearest.

    tyro's own message for a typo is a page with every similar flag of every level.
    """
    known = [key.removeprefix("--") for key in _table(cls) if key.startswith("--")]
    for arg in argv:
        name = _key(arg).removeprefix("--")
        if arg.startswith("--") and name and name not in known:
            close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
            hint = f"; did you mean --{close[0]}?" if close else ""
            raise ValueError(f"unknown flag {arg.split('=', 1)[0]}{hint} (--help lists all)")


def take(argv: Sequence[str], name: str) -> tuple[str | None, list[str]]:
    """The value of one long flag, the last one, and the other arguments as they are."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument(f"--{name}", nargs="?", dest="value")
    known, rest = parser.parse_known_args(argv)
    return known.value, rest


def command_with(name: str, value: str, *more: str) -> str:
    """The command that started this process, with another value of one long flag, and with the
    arguments `more` where they are absent."""
    _, *argv = sys.orig_argv
    for spelling in (name, name.replace("-", "_")):
        _, argv = take(argv, spelling)
    absent = [arg for arg in more if arg not in argv]
    return shlex.join(["python", *argv, f"--{name}", value, *absent])


def to_resume(saved: bool) -> list[str]:
    """What the command that started this process lacks to go on with what it has saved."""
    # The speedrun goes on by itself, without a flag.
    return ["--resume"] if saved and take(sys.orig_argv, "stage")[0] is not None else []


def _table(cls: type) -> Mapping[str, str]:
    """Every spelling of every flag, with dashes, and the name of its setting."""
    # Dashes and underscores are the same to tyro, so one spelling is enough to look names up.
    table = {"--help": "help"}
    for name, field in fields(cls).items():
        dashed = name.replace("_", "-")
        table |= {key: name for key in (f"--{dashed}", f"--no-{dashed}", *field.aliases)}
    return table


def _key(arg: str) -> str:
    """The flag of an argument: `--depth` of `--depth=4`, `-g` of `-gmine`."""
    if arg.startswith("--"):
        return arg.split("=", 1)[0].replace("_", "-")
    # tyro takes a value that touches a short flag; no long flag can be meant by one dash.
    return arg[:2] if arg.startswith("-") else arg
