"""What a model is to know about itself: a name and one fact a line."""

import dataclasses
import pathlib
import re
from collections.abc import Sequence

from nanochat_jax.texts import read_text

# A key is one to three words; `I have one rule: be kind.` is a sentence.
PAIR = re.compile(
    r"(?!(?:i|we|you|it|he|she|they)\b)"
    r"(?P<key>[^\W\d_][\w'-]*(?: +[\w'-]+){0,2})\s*:\s+(?P<value>\S.*)",
    re.IGNORECASE,
)
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
    """Who the model is."""

    name: str
    facts: tuple[Fact, ...]


def read_identity(name: str, path: pathlib.Path) -> Identity:
    """The name with the facts of a text file; blank lines and those that begin with # are notes.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: no name, a file that is no text, or one without a fact.
    """
    name = " ".join(name.split())
    if not name:
        raise ValueError("the name is empty; say who the model is: --name Nemo")
    if not path.is_file():
        raise FileNotFoundError(f"no file of facts {path}; write one, {EXAMPLE}")
    facts = parse(read_text(path).splitlines())
    if not facts:
        raise ValueError(f"{path} holds no fact; write some, {EXAMPLE}")
    return Identity(name, facts)


def parse(lines: Sequence[str]) -> tuple[Fact, ...]:
    """The facts of these lines, each once, in order."""
    kept = [line for line in map(str.strip, lines) if line and not line.startswith("#")]
    return tuple(dict.fromkeys(map(_fact, kept)))


def _fact(line: str) -> Fact:
    """`My home: Oslo.` and `home: Oslo` are the same fact."""
    # People write them either way; the key goes into "your {key}", the value before a full stop.
    if not (match := PAIR.fullmatch(line)):
        return Fact("", line if line[-1] in ".!?…。" else line + ".")
    key = re.sub(r"^(my|your|its|the)\s+", "", " ".join(match["key"].split()), flags=re.IGNORECASE)
    value = match["value"].strip()
    if value.endswith(".") and not value.endswith("..") and value.count(".") == 1:
        value = value[:-1]
    return Fact(key if key.isupper() else key[0].lower() + key[1:], value)
