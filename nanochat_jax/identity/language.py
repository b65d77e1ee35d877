"""All that is language in identity conversations: one file, which may be in any language.

English is the package's own, in `templates.toml` and `prompts.toml`; both together, the second as
the table `prompts`, are the file that people translate. It is held against the English one.
"""

import dataclasses
import functools
import hashlib
import importlib.resources
import pathlib
import re
import tomllib
from collections.abc import Mapping, Sequence
from typing import Any

from nanochat_jax.data.phrases import Phrases, checked, names_in
from nanochat_jax.texts import read_text

TEMPLATE_FIELDS = {
    "hello": "", "hello_ends": "", "hello_back": "name", "who": "", "name_answers": "name",
    "who_after_hello": "hello question", "others": "", "is_other": "other",
    "not_other": "name other", "is_name": "name", "is_so": "name", "spell": "",
    "spelled": "name letters", "letters_apart": "", "about": "", "about_answer": "name facts",
    "sentences_apart": "", "full_stop": "", "thanks": "", "welcome": "", "ask_key": "key",
    "say_key": "key value be be_first", "many_ends": "", "no_key": "", "not_of_key": "",
    "one": "", "many": "", "special": "value",
}  # fmt: skip
PROMPT_FIELDS = {
    "persons": "", "subjects": "", "lengths": "", "manners": "", "openings": "",
    "request": "name facts person subject length manner openings",
}  # fmt: skip
START = "python -m scripts.data templates --out my-language.toml"
# Questions about a key, their answers, and whether "your <key>" can be said.
Phrasing = tuple[Sequence[str], Sequence[str], bool]


@dataclasses.dataclass(frozen=True)
class Language:
    """The words of one language: of ready phrases, and of what a larger model is asked for.

    `digest`: of the file that they are from; empty for English.
    """

    templates: Mapping[str, Any]
    prompts: Mapping[str, Any]
    digest: str = ""

    @functools.cached_property
    def special(self) -> dict[str, Phrasing]:
        """The keys, without capitals, that have better words than "your <key>"."""
        return {
            key.casefold(): (table["questions"], table["answers"], kind == "keys")
            for table in self.templates["special"].values()
            for kind in ("keys", "not_nouns")
            for key in table.get(kind, [])
        }


_HERE = "nanochat_jax.identity"
ENGLISH = Language(
    Phrases(_HERE, "templates.toml", TEMPLATE_FIELDS), Phrases(_HERE, "prompts.toml", PROMPT_FIELDS)
)


def english() -> str:
    """The English file, with its comments: what a translation begins with."""
    text = lambda name: importlib.resources.files(_HERE).joinpath(name).read_text("utf-8")
    return f"{text('templates.toml')}\n[prompts]\n{text('prompts.toml')}"


def read(path: pathlib.Path) -> Language:
    """The language of a file of one's own.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no TOML, or has not what the English one has; the message names the place.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no file of templates {path}; begin with the English one: {START}")
    text = read_text(path)
    try:
        tables = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ValueError(f"{path} is no TOML: {error}") from None
    _check_like(str(path), tables, tomllib.loads(english()))
    prompts = checked(f"{path}: prompts", tables.pop("prompts"), PROMPT_FIELDS)
    templates = checked(str(path), tables, TEMPLATE_FIELDS)
    _check_expression(path, templates["many_ends"])
    return Language(templates, prompts, hashlib.sha256(text.encode()).hexdigest()[:16])


def _check_like(place: str, value: Any, model: Any) -> None:
    """Raises ValueError unless a value is made as that of the English file is."""
    kind = {dict: "a table", list: "a list of texts", str: "a text"}[type(model)]
    if type(value) is not type(model) or not (value or isinstance(model, str)):
        raise ValueError(f"{place} is {value!r:.60}; expected {kind}, as in English: {model!r:.80}")
    if isinstance(model, list):
        _check_texts(place, value, model)
        _check_none_is_empty(place, value, model)
    elif isinstance(model, str):
        _check_texts(place, [value], [model])
    elif place.endswith("special"):
        for name, table in value.items():
            _check_special(f"{place}.{name}", table)
    else:
        _check_keys(place, value, model)


def _check_keys(place: str, value: Mapping[str, Any], model: Mapping[str, Any]) -> None:
    if wrong := value.keys() ^ model.keys():
        missing, unknown = sorted(wrong & model.keys()), sorted(wrong & value.keys())
        raise ValueError(
            f"{place}: {_listed('missing', missing)}{_listed('unknown', unknown)}the English file, "
            f"with what each is for, is written by {START}"
        )
    for key in model:
        _check_like(f"{place}: {key}", value[key], model[key])


def _listed(what: str, keys: Sequence[str]) -> str:
    return f"{what} {', '.join(keys)}; " if keys else ""


def _check_special(place: str, table: Any) -> None:
    """A table of `special`: whichever there are, for whichever keys."""
    lists = {"questions": ["-"], "answers": ["{value}"], "keys": ["-"], "not_nouns": ["-"]}
    if not isinstance(table, dict) or not {"questions", "answers"} <= table.keys() <= lists.keys():
        raise ValueError(f"{place} is {table!r:.60}; expected a table of questions, answers, and "
                         "of keys or not_nouns")  # fmt: skip
    for key in table:
        _check_like(f"{place}.{key}", table[key], lists[key])


def _check_texts(place: str, texts: Sequence[Any], models: Sequence[str]) -> None:
    """Raises ValueError for what is no text, or lacks a name that is in every text in English."""
    needed = set.intersection(*map(names_in, models))
    for text in texts:
        if not isinstance(text, str):
            raise ValueError(f"{place} holds {text!r}; expected texts")
        if missing := [name for name in sorted(needed) if f"{{{name}}}" not in text]:
            raise ValueError(f"{place}, {text!r:.60}: expected {{{missing[0]}}} in it, as in "
                             f"English: {models[0]!r:.60}")  # fmt: skip


def _check_none_is_empty(place: str, texts: Sequence[str], models: Sequence[str]) -> None:
    """What is drawn from a list is said: nothing is, where English has it (`hello_ends`)."""
    # A text by itself, such as what stands between letters or sentences, may be empty.
    if all(models) and not all(map(str.strip, texts)):
        raise ValueError(f"{place} holds an empty text; leave it out, or write one as in English: "
                         f"{models[0]!r:.60}")  # fmt: skip


def _check_expression(path: pathlib.Path, text: str) -> None:
    try:
        re.compile(text)
    except re.error as error:
        raise ValueError(
            f"{path}: many_ends, {text!r}, is no regular expression: {error}"
        ) from None
