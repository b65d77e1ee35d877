"""From tokens to text to show at once: whole characters, no half stop strings, tools apart."""

import codecs
from collections.abc import Sequence
from typing import NamedTuple

from nanochat_jax.tokenizer import Tokenizer
from nanochat_jax.tokenizer.chat_format import KIND_AFTER, PartKind


class Piece(NamedTuple):
    """New text of one kind."""

    kind: PartKind
    text: str


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
            shown, self._held = self._held[: min(places)], ""
            return shown
        keep = self._possible_start()
        shown, self._held = self._held[: len(self._held) - keep], self._held[-keep:] if keep else ""
        return shown

    def flush(self) -> str:
        """What was held back, now that nothing more comes."""
        shown, self._held = self._held, ""
        return shown

    def _possible_start(self) -> int:
        """Length of the longest end of the held text that begins a stop string."""
        longest = min(len(self._held), max((len(stop) - 1 for stop in self._stops), default=0))
        begins = lambda end: any(stop.startswith(end) for stop in self._stops)
        return next((n for n in range(longest, 0, -1) if begins(self._held[-n:])), 0)


class ReplyReader:
    """Reads a reply token by token into pieces.

    A character whose bytes come in several tokens appears when it is complete; bytes that are no
    UTF-8 appear as U+FFFD. `raw` keeps to plain text: special tokens are skipped, none switches.
    """

    def __init__(self, tokenizer: Tokenizer, stops: Sequence[str] = (), raw: bool = False):
        self._tokenizer = tokenizer
        specials = tokenizer.get_special_tokens()
        self._specials = {tokenizer.encode_special(name): name for name in specials}
        self._raw = raw
        self._kind: PartKind = "text"
        self._utf8 = codecs.getincrementaldecoder("utf-8")("replace")
        self._guard = StopGuard(stops)

    @property
    def stopped(self) -> bool:
        """Whether a stop string was met; what follows is not part of the reply."""
        return self._guard.stopped

    def push(self, token: int) -> list[Piece]:
        """The pieces that `token` completes."""
        if self.stopped:
            return []
        name = self._specials.get(token)
        if name is None:
            return self._show(self._utf8.decode(self._tokenizer.id_to_bytes(token)))
        if self._raw or name not in KIND_AFTER:
            return []
        pieces = self._show(self._utf8.decode(b"", final=True))
        self._utf8.reset()
        self._kind = KIND_AFTER[name]
        return pieces

    def finish(self) -> list[Piece]:
        """What was still held back: the reply has ended."""
        if self.stopped:
            return []
        pieces = self._show(self._utf8.decode(b"", final=True))
        rest = self._guard.flush() if not self.stopped else ""
        return pieces + ([Piece("text", rest)] if rest else [])

    def _show(self, text: str) -> list[Piece]:
        if self._kind == "text":
            text = self._guard.push(text)
        return [Piece(self._kind, text)] if text else []


def merge(pieces: Sequence[Piece]) -> list[Piece]:
    """The same text in as few pieces as can be."""
    merged: list[Piece] = []
    for piece in pieces:
        if merged and merged[-1].kind == piece.kind:
            piece = Piece(piece.kind, merged.pop().text + piece.text)
        merged.append(piece)
    return merged


def join_parts(pieces: Sequence[Piece]) -> list[dict]:
    """Pieces joined into nanochat's content parts, `{"type": kind, "text": ...}` each."""
    return [{"type": piece.kind, "text": piece.text} for piece in merge(pieces)]
