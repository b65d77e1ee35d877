"""The words that begin with a slash: one list for the terminal and the page, which reads the same
file."""

import dataclasses
import importlib.resources
import json
import re

from nanochat_jax.config.errors import nearest

# As on the page: a blank before the slash makes it a message.
CALL = re.compile(r"/([a-z]+)(?:\s+(.*?))?\s*", re.IGNORECASE | re.DOTALL)
SPELLED = {float: "a number", int: "a whole number"}


@dataclasses.dataclass(frozen=True)
class Command:
    """One word; `setting` is what it changes, of the type and in the range that its value has."""

    word: str
    does: str
    value: str = ""
    setting: str = ""
    low: float = 0
    high: float = 0
    whole: bool = False
    only: str = ""  # where it is known, if not everywhere

    def number(self, text: str) -> float | int:
        """The setting's value; ValueError with what is allowed."""
        kind = int if self.whole else float
        try:
            if self.low <= (value := kind(text)) <= self.high:
                return value
        except ValueError:
            pass
        allowed = f"{SPELLED[kind]} from {self.low} to {self.high}"
        raise ValueError(f"{self.word} must be {allowed}, not {text!r}")


def _read() -> dict[str, Command]:
    folder = importlib.resources.files("nanochat_jax.serve.server") / "page"
    entries = json.loads((folder / "commands.json").read_text(encoding="utf-8"))
    return {entry["word"]: Command(**entry) for entry in entries}


COMMANDS = _read()


BIAS_FORM = re.compile(r"\s*([0-9]{1,9})\s*:\s*([+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+))\s*")


def biases(text: str) -> dict[int, float]:
    """What is added to tokens' logits, of a text like `17: -100, 5: 2.5`; ValueError for others."""
    pairs = [BIAS_FORM.fullmatch(pair) for pair in text.split(",") if pair.strip()]
    if None in pairs:
        raise ValueError(f"bias must be token ids and numbers, like 17: -100, 5: 2.5, not {text!r}")
    return {int(pair[1]): float(pair[2]) for pair in pairs}


def called(text: str) -> tuple[str, str] | None:
    """(the word, what stands after it); None for a message."""
    found = CALL.fullmatch(text)
    return (found[1].lower(), found[2] or "") if found else None


def unknown(word: str) -> str:
    """What to say of a word that is none."""
    known = [f"/{name}" for name in COMMANDS]
    return f"there is no command /{word}{nearest(f'/{word}', known)} (/help explains them)"


def listed() -> str:
    """A line for each word."""
    calls = {f"/{c.word} {f'[{c.value}]' if c.value else ''}": c.does for c in COMMANDS.values()}
    return "\n".join(f"  {call:<24} {does}" for call, does in calls.items())
