"""The command line: which settings were typed, and their values. `tyro` reads them, once."""

import argparse
import pathlib
import shlex
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import tyro

from nanochat_jax.config import help, paths
from nanochat_jax.config.errors import nearest
from nanochat_jax.config.typed import (
    BAR,
    HELP,
    check,
    flag_of,
    key_of,
    one_line,
    table_of,
    unbarred,
)
from nanochat_jax.config.values import flat


def parse(argv: Sequence[str], default: Any, *, prog: str | None = None) -> dict[str, Any]:
    """The settings that `argv` names, with their typed values by flat name.

    Args:
        default: a config whose values `--help` shows.

    Raises:
        ValueError: an unknown flag, the nearest of which is named, or a value that cannot be.
        SystemExit: after `--help` (0).
    """
    cls, argv = type(default), unbarred(argv)
    check(argv, cls)
    help.asked(argv, cls, default, prog or cls.__name__)
    with one_line(argv, cls):
        config = (tyro.conf.OmitArgPrefixes,)
        parsed = tyro.cli(cls, args=argv, default=default, prog=prog, config=config)
    # tyro gives whole configs and does not say which fields were typed. A flag that repeats a
    # default must still win over what a parent checkpoint says, so the names come from `argv`.
    table = table_of(cls)
    typed = {table[key] for key in map(key_of, argv) if key in table}
    return {name: value for name, value in flat(parsed).items() if name in typed}


def whole(argv: Sequence[str], cls: type, *, prog: str) -> Any:
    """The config of a program that takes words and flags of its own and no file; raises as
    `parse`."""
    argv = _help_alike(unbarred(argv))
    check(argv, cls, words=True)
    with one_line(argv, cls):
        return tyro.cli(cls, args=argv, prog=prog)


def command(
    commands: Mapping[str, type], argv: Sequence[str], *, prog: str = "", description: str = ""
) -> Any:
    """The config of the command that `argv` begins with; without one the commands are listed.

    Raises as `parse`, and SystemExit (2) where nothing was typed.
    """
    argv = argv[1:] if argv[:1] == [BAR] else argv
    if not argv or argv[0] in HELP:
        usage, more = f"{prog} COMMAND [flags]", f"flags of one:  python -m {prog} COMMAND --help"
        print(help.of_choices(commands, usage, description.partition(":")[0] + ":", more))
        raise SystemExit(0 if argv else 2)
    if argv[0] not in commands:
        what = "no command before" if argv[0].startswith("-") else "unknown command"
        raise ValueError(f"{what} {argv[0]!r}{nearest(argv[0], list(commands))}")
    cls, argv = commands[argv[0]], _help_alike(argv)
    check(argv[1:], cls, words=True)
    with one_line(argv, cls):
        return tyro.extras.subcommand_cli_from_dict(
            commands, args=argv, prog=prog, description=description
        )


def _help_alike(argv: Sequence[str]) -> list[str]:
    """The arguments where all help is `--help`: of these programs no flag is rare."""
    return ["--help" if arg in HELP else arg for arg in argv]


def take(argv: Sequence[str], name: str) -> tuple[str | None, list[str]]:
    """The value of one long flag, the last one, and the other arguments as they are."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument(f"--{name}", nargs="?", dest="value")
    known, rest = parser.parse_known_args(argv)
    return known.value, rest


def again(**changed: str) -> str:
    """The command that started this process, with other values of its long flags."""
    return _typed(_changed(sys.orig_argv[1:], changed))


def to_go_on(tag: str, **changed: str) -> str:
    """The command that goes on with a run of that tag, from the one that started this process;
    `changed` as of `again`."""
    argv = _changed(sys.orig_argv[1:], changed)
    if not _trains_one_stage(argv):
        return _typed(argv)  # the speedrun goes on by itself
    # It goes on with its own checkpoint, whatever it began with, under the name that has.
    init, argv = take(argv, "init")
    argv = _without(argv, "resume-from-step")
    named = {"--model-tag", "--model_tag", "-g"} & {arg.split("=", 1)[0] for arg in argv}
    more = ["--model-tag", tag] if init and not named else []
    return _typed([*argv, *more, *([] if "--resume" in argv else ["--resume"])])


def tagged(folder: pathlib.Path) -> str:
    """` -g TAG` of a run's folder, where programs that are given none would take another run."""
    guessed = paths.guess_tag(folder.parent) == folder.name
    return "" if guessed else f" -g {shlex.quote(folder.name)}"


def _trains_one_stage(argv: Sequence[str]) -> bool:
    """Whether it is `scripts.train`, as a module or as a file."""
    return any(arg == "scripts.train" or pathlib.Path(arg).name == "train.py" for arg in argv)


def _changed(argv: Sequence[str], values: Mapping[str, str]) -> list[str]:
    for name in values:
        argv = _without(argv, name)
    return [*argv, *(word for name in values for word in (flag_of(name), values[name]))]


def _without(argv: Sequence[str], name: str) -> list[str]:
    """The arguments without one long flag, however it is spelled."""
    for spelling in (name.replace("_", "-"), name.replace("-", "_")):
        _, argv = take(argv, spelling)
    return list(argv)


def _typed(argv: Sequence[str]) -> str:
    return shlex.join(["python", *argv])
