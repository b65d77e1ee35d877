"""What a model is to know about itself: a name and one fact a line."""

import dataclasses
import pathlib
import re
from collections.abc import Mapping, Sequence
from typing import Any

from nanochat_jax.identity.language import ENGLISH, Language
from nanochat_jax.texts import read_text

# A key is one to three words. Beyond ASCII whatever is no blank may be in one: `\w` knows no marks.
PAIR = re.compile(
    r"(?P<key>[^\W\d_](?:[\w'-]|[^\x00-\x7f\s：])*(?: +(?:[\w'-]|[^\x00-\x7f\s：])+){0,2})"
    r"\s*(?::\s+|：\s*)(?P<value>\S.*)"
)
ENDS = ".!?…。！？।؟۔։።"
EXAMPLE = "one a line, `creator: Ada` or a sentence as the model would say it: `I like maps.`"


@dataclasses.dataclass(frozen=True)
class Fact:
    """`key: value`, or with an empty key a sentence."""

    key: str
    value: str

    @property
    def line(self) -> str:
        return f"{self.key}: {self.value}" if self.key else self.value


@dataclasses.dataclass(frozen=True)
class Identity:
    """Who the model is, and in which language it says so."""

    name: str
    facts: tuple[Fact, ...]
    language: Language = dataclasses.field(default=ENGLISH, compare=False)

    @property
    def words(self) -> Mapping[str, Any]:
        return self.language.templates


def read_identity(name: str, path: pathlib.Path, language: Language = ENGLISH) -> Identity:
    """The name with the facts of a text file; blank lines and those that begin with # are notes.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: no name, or one that is all the language has for others; a file that is no text,
            or one without a fact.
    """
    name = " ".join(name.split())
    if not name:
        raise ValueError("the name is empty; say who the model is: --name Nemo")
    if not others(name, language):
        raise ValueError(f"others, in the file of templates, names {name} alone, which is the "
                         "model's own name; add other ones")  # fmt: skip
    if not path.is_file():
        raise FileNotFoundError(f"no file of facts {path}; write one, {EXAMPLE}")
    facts = parse(read_text(path).splitlines(), language)
    if not facts:
        raise ValueError(f"{path} holds no fact; write some, {EXAMPLE}")
    return Identity(name, facts, language)


def others(name: str, language: Language) -> list[str]:
    """The names of other assistants than the one that has this name."""
    return [o for o in language.templates["others"] if o.casefold() != name.casefold()]


def parse(lines: Sequence[str], language: Language = ENGLISH) -> tuple[Fact, ...]:
    """The facts of these lines, each once, in order."""
    kept = [line for line in map(str.strip, lines) if line and not line.startswith("#")]
    return tuple(dict.fromkeys(_fact(line, language.templates) for line in kept))


def _fact(line: str, words: Mapping[str, Any]) -> Fact:
    """`My home: Oslo.` and `home: Oslo` are the same fact."""
    # People write them either way; the key goes into "your {key}", the value before a full stop.
    match, stop = PAIR.fullmatch(line), words["full_stop"]
    first, _, rest = " ".join(match["key"].split()).partition(" ") if match else ("", "", "")
    # `I have one rule: be kind.` is a sentence.
    begins, listed = first.casefold(), lambda which: words[which].casefold().split()
    if not match or begins.partition("'")[0] in listed("no_key"):
        return Fact("", line if line[-1] in ENDS else line + stop)
    key = rest if rest and begins in listed("not_of_key") else match["key"]
    key = " ".join(key.split())
    value = match["value"].strip()
    if value.endswith(stop) and value.count(stop) == 1:
        value = value.removesuffix(stop)
    return Fact(key if key.isupper() else key[0].lower() + key[1:], value)
