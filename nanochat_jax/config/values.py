"""A config as flat values by name, and back: what files, checkpoints and fingerprints hold."""

import dataclasses
import hashlib
import json
import types
import typing
from collections.abc import Mapping
from typing import Any, TypeVar

from nanochat_jax.config.errors import nearest
from nanochat_jax.config.program import FieldKind

Config = TypeVar("Config")


class Field(typing.NamedTuple):
    """A setting: the nested dataclass that holds it (empty: none), its type and kind."""

    parent: str
    type: Any
    kind: FieldKind | None
    aliases: tuple[str, ...]


def fields(cls: type) -> dict[str, Field]:
    """Every setting of a config class by its flat name, those of nested dataclasses too."""
    out: dict[str, Field] = {}
    plain, full = typing.get_type_hints(cls), typing.get_type_hints(cls, include_extras=True)
    for field in dataclasses.fields(cls):
        hint = plain[field.name]
        if dataclasses.is_dataclass(hint):
            out |= {n: inner._replace(parent=field.name) for n, inner in fields(hint).items()}
            continue
        extras = typing.get_args(full[field.name])[1:] if full[field.name] is not hint else ()
        kind = next((extra for extra in extras if isinstance(extra, FieldKind)), None)
        # The rest is tyro's own, and not every kind of it names aliases.
        aliases = tuple(a for e in extras for a in getattr(e, "aliases", None) or ())
        out[field.name] = Field("", hint, kind, aliases)
    return out


def build(cls: type[Config], values: Mapping[str, Any], *, where: str = "") -> Config:
    """`cls` with `values` (flat names, also of nested dataclasses) over its defaults.

    Raises:
        ValueError: an unknown name (the nearest is named) or a value of the wrong type.
    """
    known = fields(cls)
    own: dict[str, Any] = {}
    nested: dict[str, dict[str, Any]] = {}
    for name, value in values.items():
        check_known(name, known, f"{where or cls.__name__}: unknown key {name!r}")
        parent = known[name].parent
        holder = nested.setdefault(parent, {}) if parent else own
        holder[name] = _checked(name, value, known[name].type, where)
    made = cls(**own)
    inner = {p: dataclasses.replace(vars(made)[p], **changed) for p, changed in nested.items()}
    return dataclasses.replace(made, **inner)


def flat(config: Any) -> dict[str, Any]:
    """The values of a config by flat name: nested dataclasses give their own fields."""
    out: dict[str, Any] = {}
    for name, value in vars(config).items():
        out |= flat(value) if dataclasses.is_dataclass(value) else {name: value}
    return out


def flatten(config: Any) -> dict[str, Any]:
    """`flat` as JSON has it (tuples are lists): what checkpoints and reports keep."""
    # Through JSON and back: what was saved and what is asked for must compare equal.
    return json.loads(json.dumps(flat(config)))


def fingerprint(config: Any) -> dict[str, Any]:
    """What of a config decides the result of its stage: every field of no kind."""
    known = fields(type(config))
    return {name: value for name, value in flatten(config).items() if known[name].kind is None}


def completed(cls: type, earlier: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """A fingerprint of an earlier version, with the fields that came since at their defaults: a
    new field's default is what was done before there was one. None stays None."""
    return None if earlier is None else fingerprint(cls()) | dict(earlier)


def kept_on_resume(cls: type, saved: Mapping[str, Any]) -> dict[str, Any]:
    """Of an earlier run's flat values those that a run which goes on takes over.

    Names that the class no longer knows are dropped: the checkpoint may be of an older version.
    """
    known, own = fields(cls), per_call(cls, saved)
    return {name: value for name, value in saved.items() if name in known and name not in own}


def per_call(cls: type, values: Mapping[str, Any]) -> dict[str, Any]:
    """Of flat values those that say how this one call is to run."""
    known = fields(cls)
    names = [n for n in values if n in known and known[n].kind is FieldKind.PER_CALL]
    return {name: values[name] for name in names}


def digest(values: Mapping[str, Any]) -> str:
    """A short stable hash of JSON values."""
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:16]


def check_known(name: str, known: typing.Collection[str], message: str) -> None:
    """Raises ValueError with `message` and the nearest known name unless `name` is known."""
    if name not in known:
        raise ValueError(message + nearest(name, list(known)))


def _checked(name: str, value: Any, hint: Any, where: str) -> Any:
    """`value` as `hint` wants it: ints become floats, lists become tuples; else a ValueError."""
    origin = typing.get_origin(hint)
    # By `type`: bool is a subclass of int, and `true` where a rate belongs is a mistake.
    if hint is float and type(value) is int:
        return float(value)
    if origin is tuple and isinstance(value, list | tuple):
        return tuple(value)
    if origin is types.UnionType and type(value) in typing.get_args(hint):
        return value
    if type(value) is hint or origin is typing.Literal and value in typing.get_args(hint):
        return value
    wanted = hint.__name__ if isinstance(hint, type) else str(hint).replace("typing.", "")
    at = f"{where}: " if where else ""
    raise ValueError(f"{at}{name} is {value!r} ({type(value).__name__}); expected {wanted}")
