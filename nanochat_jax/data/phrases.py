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
        if wrong := tables.keys() ^ self._fields.keys():
            raise ValueError(
                f"{self._file}: keys {sorted(wrong)} are missing or unknown; expected "
                f"{', '.join(self._fields)}"
            )
        known = {k: text for k, text in (self._known or {}).items() if isinstance(text, str)}
        names = {key: set(fields.split()) for key, fields in self._fields.items()}
        return {key: self._checked(key, value, names[key], known) for key, value in tables.items()}

    def _checked(self, place: str, value: Any, allowed: set[str], known: dict[str, str]) -> Any:
        """The value with what is known put in."""
        if isinstance(value, dict) and value:
            return {k: self._checked(f"{place}.{k}", v, allowed, known) for k, v in value.items()}
        if isinstance(value, list) and value:
            items = enumerate(value)
            return [self._checked(f"{place}[{i}]", v, allowed, known) for i, v in items]
        if not isinstance(value, str):
            raise ValueError(f"{self._file}: {place} is {value!r}; expected texts")
        for name, text in known.items():
            value = value.replace(f"{{{name}}}", text)
        try:
            names = {name for _, name, _, _ in string.Formatter().parse(value) if name is not None}
        except ValueError as error:
            raise ValueError(f"{self._file}: {place}, {value!r}: {error}") from None
        if wrong := names - allowed:
            may = ", ".join(sorted(allowed | known.keys())) or "none"
            raise ValueError(f"{self._file}: {place} names {sorted(wrong)} in braces; known: {may}")
        return value
