"""From tokens to text to show at once: whole characters, no half stop strings, tools apart."""

import codecs
import itertools
import operator
from collections.abc import Sequence

from nanochat_jax.tokenizer import Tokenizer
from nanochat_jax.tokenizer.chat_format import KIND_AFTER, Part, PartKind


class StopGuard:
    """Passes text on, but holds back what may be the beginning of a stop string."""

    def __init__(self, stops: Sequence[str] = ()):
        self._stops = tuple(stop for stop in stops if stop)
        self._held = ""
        self.stopped = False

    def push(self, text: str) -> str:
        """What may be shown now; sets `stopped` and cuts when a stop string is complete."""
        self._held += text
        places = [place for stop in self._stops if (place := self._held.find(stop)) >= 0]
        if places:
            self.stopped = True
            return self.flush()[: min(places)]
        ends = (self._held[i:] for i in range(len(self._held)))
        begins = lambda end: any(stop.startswith(end) for stop in self._stops)
        text, self._held = self._held, next(filter(begins, ends), "")
        return text.removesuffix(self._held)

    def flush(self) -> str:
        """What was held back, now that nothing more comes."""
        shown, self._held = self._held, ""
        return shown


class ReplyReader:
    """Reads a reply token by token into parts, each as much as may be shown now.

    A character whose bytes come in several tokens appears when it is complete; bytes that are no
    UTF-8 appear as U+FFFD. `raw` keeps to plain text: special tokens are skipped, none switches.
    `kind` is that of the first part.
    """

    def __init__(
        self, tokenizer: Tokenizer, stops: Sequence[str] = (), raw: bool = False,
        kind: PartKind = "text",
    ):  # fmt: skip
        self._tokenizer, self._raw = tokenizer, raw
        specials = tokenizer.get_special_tokens()
        self._specials = {tokenizer.encode_special(name): name for name in specials}
        self._kind = kind
        self._utf8 = codecs.getincrementaldecoder("utf-8")("replace")
        self._guard = StopGuard(stops)

    @property
    def stopped(self) -> bool:
        """Whether a stop string was met; what follows is not part of the reply."""
        return self._guard.stopped

    def push(self, token: int) -> list[Part]:
        """The parts that `token` completes."""
        name = self._specials.get(token)
        if name is None:
            return self._show(self._tokenizer.id_to_bytes(token))
        if self._raw or name not in KIND_AFTER:
            return []
        parts = self._show(b"", final=True)
        self._kind = KIND_AFTER[name]
        return parts

    def finish(self) -> list[Part]:
        """What was still held back: the reply has ended."""
        parts, rest = self._show(b"", final=True), self._guard.flush()
        return parts + ([Part("text", rest)] if rest else [])

    def _show(self, raw: bytes, final: bool = False) -> list[Part]:
        if self.stopped:
            return []
        text = self._utf8.decode(raw, final)
        if self._kind == "text":
            text = self._guard.push(text)
        return [Part(self._kind, text)] if text else []


def merge(parts: Sequence[Part]) -> list[Part]:
    """The same text in as few parts as can be."""
    groups = itertools.groupby(parts, operator.attrgetter("kind"))
    return [Part(kind, "".join(part.text for part in group)) for kind, group in groups]


def join_parts(parts: Sequence[Part]) -> list[dict[str, str]]:
    """Parts joined, in nanochat's form of them, `{"type": kind, "text": ...}` each."""
    return [{"type": part.kind, "text": part.text} for part in merge(parts)]
