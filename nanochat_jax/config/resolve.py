"""Where a config is settled, once: defaults < recipe < file < parent checkpoint < flags.

A TOML file holds only what differs from the defaults: keys at its top go to every program that
knows them, a table such as `[base]` to that program alone.
"""

import dataclasses
import pathlib
import tomllib
from collections.abc import Mapping, Sequence
from typing import Any

from nanochat_jax.config import flags, inherit, typed
from nanochat_jax.config.program import Eval, FieldKind, Speedrun
from nanochat_jax.config.serve import ChatCLI, ChatWeb
from nanochat_jax.config.stages import STAGES, recipes_of
from nanochat_jax.config.values import build, check_known, fields, kept_on_resume, per_call
from nanochat_jax.texts import read_text

CONFIGS = pathlib.Path(__file__).resolve().parents[2] / "configs"  # the shipped ones

# Every program that reads a TOML file, by the name of its table there.
SECTIONS: dict[str, type] = {
    **STAGES, "eval": Eval, "speedrun": Speedrun, "chat_cli": ChatCLI, "chat_web": ChatWeb,
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Layers:
    """What a file and the flags say of one program, as flat values.

    Args:
        path: the file that was read; empty: none. `named`: `--config` gave it.
    """

    section: str
    file: Mapping[str, Any]
    flags: Mapping[str, Any]
    path: str
    named: bool

    def config(self, inherited: Mapping[str, Any] | None = None) -> Any:
        """The config, with a parent's values above the recipe's and below the flags.

        A default file stands below the parent: it is the demo's or the guide's, and the parent may
        be anybody's. A file that was named was meant for this run, and stands above.
        """
        inherited, file = inherited or {}, self.file
        if not self.named:
            file = {name: value for name, value in file.items() if name not in inherited}
        path = {"config": self.path} if self.path else {}
        above = {**inherited, **file, **path, **self.flags}
        return build(SECTIONS[self.section], {**self._recipe(above), **above}, where=self.path)

    def handed_on(self) -> dict[str, Any]:
        """What the program's own table or the flags name of the fields that are handed on."""
        known, named = fields(SECTIONS[self.section]), {**self.file, **self.flags}
        return {n: v for n, v in named.items() if known[n].kind is FieldKind.HANDED_ON}

    def _recipe(self, above: Mapping[str, Any]) -> Mapping[str, Any]:
        """What the recipe sets that `above` names, else the program's usual one."""
        cls, recipes = SECTIONS[self.section], recipes_of(self.section)
        if "recipe" not in fields(cls):
            return {}
        name = above.get("recipe") or cls.recipe
        if name not in recipes:
            raise ValueError(f"recipe is {name!r}; expected one of {', '.join(recipes)}")
        return recipes[name]


def read(
    section: str, argv: Sequence[str] = (), *, values: Mapping[str, Any] | None = None,
    default_file: pathlib.Path | None = None, prog: str | None = None,
) -> Layers:  # fmt: skip
    """The file and the flags of a program. The only place where a config touches the disk.

    Args:
        values: typed settings that stand where flags do: another program's, handed on.
        default_file: read when no file is named.

    Raises:
        ValueError: an unreadable file, an unknown key or flag, or a value of the wrong type.
        SystemExit: what tyro says of a wrong flag (2) or of `--help` (0).
    """
    cls, given, argv = SECTIONS[section], dict(values or {}), typed.unbarred(argv)
    typed.check(argv, cls, others=SECTIONS)
    named = given.get("config") or flags.take(argv, "config")[0]
    path = config_file(named) if named else default_file
    table = read_toml(path) if path else {}
    known = fields(cls)
    own = {n for n, field in known.items() if field.kind is not FieldKind.HANDED_ON}
    shared = {n: v for n, v in table.items() if n in own and not isinstance(v, dict)}
    file = shared | table.get(section, {})
    layers = Layers(section, file, given, str(path or ""), bool(named))
    if not argv:
        return layers
    # `--help` shows the values that would hold, and the recipe decides most of them.
    recipe, _ = flags.take(argv, "recipe")
    shown = given | ({"recipe": recipe} if recipe else {})
    default = dataclasses.replace(layers, flags=shown).config()
    build(cls, file, where=layers.path)  # a wrong value is an error even where a flag covers it
    typed_flags = flags.parse(argv, default, prog=prog) | given
    # The file that was read, wherever its name was found.
    return dataclasses.replace(layers, flags=typed_flags | ({"config": str(path)} if named else {}))


def settle(
    layers: Layers, *, parent: inherit.Meta | None = None, saved: Mapping[str, Any] | None = None
) -> Any:
    """The config of a program. Pure.

    Args:
        parent: the `meta.json` of the checkpoint that a stage starts from.
        saved: the flat config of the run that goes on; it stands in for recipe, file and parent.
            The file still says what is of the call alone: the mesh, how attention is computed.

    Raises:
        ValueError: a value of the wrong type, or values that do not fit together.
    """
    if saved is not None:
        cls = SECTIONS[layers.section]
        return build(cls, kept_on_resume(cls, saved) | per_call(cls, layers.file) | layers.flags)
    if parent is None:
        return layers.config()
    if layers.section == "base":
        if not layers.named:  # the rates of the default file are another model's
            layers = dataclasses.replace(layers, file={}, path="")
        return layers.config(inherit.dials(parent))
    # In two steps: what a stage packs and counts is its recipe's, and the recipe the parent's.
    taken = inherit.recipe(layers.config(), parent)
    return layers.config(taken | inherit.rates_and_batch(layers.config(taken), parent))


def resolve(section: str, argv: Sequence[str] = (), **layers: Any) -> Any:
    """The config of a program that starts from no checkpoint; arguments as `read`."""
    return read(section, argv, **layers).config()


def config_file(named: str) -> pathlib.Path:
    """The file that `--config` names: `d20` is `configs/d20.toml`, if there is no file `d20`."""
    path = pathlib.Path(named).expanduser()
    shipped = CONFIGS / f"{path.stem}.toml"
    return shipped if not path.exists() and shipped.exists() and _is_a_name(path) else path


def _is_a_name(path: pathlib.Path) -> bool:
    return path.suffix in ("", ".toml") and path.parent in (pathlib.Path(), pathlib.Path("configs"))


def read_toml(path: pathlib.Path) -> dict[str, Any]:
    """The parsed file, every key of which some program knows; else a ValueError."""
    try:
        table = tomllib.loads(read_text(path))
    except FileNotFoundError:
        near = sorted(path.parent.glob("*.toml")) if path.parent.is_dir() else []
        near = [str(p) for p in near if p.name != "pyproject.toml"]
        found = ", ".join(dict.fromkeys([*near, *sorted(p.stem for p in CONFIGS.glob("*.toml"))]))
        raise ValueError(
            f"no config file {path}; found {found or 'none'}; type --config with one of these or "
            "with the path of your own"
        ) from None
    except OSError as error:
        raise ValueError(f"cannot read the config file {path}: {error.strerror}") from None
    except tomllib.TOMLDecodeError as error:
        raise ValueError(f"{path} is not valid TOML: {error}") from None
    # A key at the top belongs to every program that knows it, so that one file serves a whole run;
    # what no program at all knows is a typing error.
    anywhere = {key for cls in SECTIONS.values() for key in fields(cls)}
    for key, value in table.items():
        if isinstance(value, dict):
            check_known(key, SECTIONS, f"{path}: unknown table [{key}]")
            for inner in value:
                known = fields(SECTIONS[key])
                check_known(inner, known, f"{path}: unknown key {inner!r} in [{key}]")
        else:
            check_known(key, anywhere, f"{path}: unknown key {key!r}")
    return table
