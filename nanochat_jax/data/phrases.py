"""Sentences and word lists that ship with the package as TOML, to be read, translated and extended.

They are checked as they are read: whoever adds a sentence learns at once, by file and key, what is
wrong with it, and not from a conversation with a brace in it.
"""

import collections
import functools
import importlib.resources
import string
import tomllib
from collections.abc import Mapping
from typing import Any


class Phrases(collections.UserDict[str, Any]):
    """The top-level keys of one file, which is read when one of them is first used.

    Args:
        package, path: where it lies, such as `"nanochat_jax.demo", "content/world.toml"`.
        fields: the keys that the file must have, each with the names, by blanks, that its texts
            may hold in braces.
        known: names that every text may hold; their values are put in as the file is read. Other
            phrases will do, of which the texts are taken.

    Raises (where a key is used):
        ValueError: a key, a list or a text is not as it must be; the message says where and why.
    """

    # Not the dict's own beginning, which would fill `data` with nothing.
    def __init__(
        self, package: str, path: str, fields: Mapping[str, str],
        known: Mapping[str, Any] | None = None,
    ):  # fmt: skip
        self._file = importlib.resources.files(package).joinpath(path)
        self._fields, self._known = fields, known

    # Read when used, since importing a module is to do nothing; once, since every sentence asks.
    @functools.cached_property
    def data(self) -> dict[str, Any]:
        tables = tomllib.loads(self._file.read_text(encoding="utf-8-sig"))
        return checked(str(self._file), tables, self._fields, self._known)


def checked(
    file: str, tables: Mapping[str, Any], fields: Mapping[str, str],
    known: Mapping[str, Any] | None = None,
) -> dict[str, Any]:  # fmt: skip
    """The tables of a file with what is known put in; arguments and errors as of `Phrases`."""
    if wrong := tables.keys() ^ fields.keys():
        raise ValueError(
            f"{file}: keys {sorted(wrong)} are missing or unknown; expected {', '.join(fields)}"
        )
    texts = {k: text for k, text in (known or {}).items() if isinstance(text, str)}
    return {key: _checked(f"{file}: {key}", value, set(fields[key].split()), texts)
            for key, value in tables.items()}  # fmt: skip


def names_in(text: str) -> set[str]:
    """What stands in braces in a text; ValueError where a brace has no partner."""
    return {name for _, name, _, _ in string.Formatter().parse(text) if name is not None}


def _checked(place: str, value: Any, allowed: set[str], known: Mapping[str, str]) -> Any:
    """The value with what is known put in."""
    if isinstance(value, dict) and value:
        return {k: _checked(f"{place}.{k}", v, allowed, known) for k, v in value.items()}
    if isinstance(value, list) and value:
        return [_checked(f"{place}[{i}]", v, allowed, known) for i, v in enumerate(value)]
    if not isinstance(value, str):
        raise ValueError(f"{place} is {value!r}; expected texts")
    for name, text in known.items():
        value = value.replace(f"{{{name}}}", text)
    try:
        names = names_in(value)
    except ValueError as error:
        raise ValueError(f"{place}, {value!r}: {error}") from None
    if wrong := names - allowed:
        may = ", ".join(sorted(allowed | known.keys())) or "none"
        raise ValueError(f"{place} names {sorted(wrong)} in braces; known: {may}")
    return value
