"""A reply as a terminal lays it out while it comes: words wrapped, markdown's marks as styles."""

import re
from collections.abc import Callable, Iterator
from typing import NamedTuple

from rich.cells import cell_len

from nanochat_jax.tokenizer.chat_format import Part, PartKind

SGR = {"": "0", "bold": "0;1", "code": "0;36", "tool": "0;2"}
# A mark whose end does not come is text; nobody waits for it longer than this many characters.
PATIENCE = 200
BOLD = re.compile(r"(\*{2,3})(?=[^\s*])([^\n]*?[^\s*])\1(?!\*)")
CODE = re.compile(r"`([^`\n]+)`")
FENCE = re.compile(r" {0,3}(`{3,}|~{3,})[^`\n]*")
HEADING = re.compile(r" {0,3}#{1,6} ")
# The beginning of a line that may yet become a fence or a heading.
UNDECIDED = re.compile(r" {0,3}(`{1,3}|~{1,3}|#{1,6})?")
MARKER = re.compile(r"[-*+•]|\d{1,3}[.)]")  # of a list: what follows hangs under it
# What does not begin or end a line where a line may break between any two characters.
NEVER_FIRST = frozenset(
    "、。，．・：；！？）」』】〕〉》”’…‥ーゝゞ々ぁぃぅぇぉっゃゅょァィゥェォッャュョ%％"
)
NEVER_LAST = frozenset("（「『【〔〈《“‘")
JOINER = "\u200d"
FLAG_LETTERS = frozenset(map(chr, range(0x1F1E6, 0x1F200)))  # two of them are a flag
SKIN_TONES = frozenset(map(chr, range(0x1F3FB, 0x1F400)))


class Run(NamedTuple):
    """Text in one style (a key of `SGR`); `verbatim`: its lines are left as they are."""

    text: str
    style: str = ""
    verbatim: bool = False


class Markup:
    """Text of a reply, piece by piece -> runs. What may be the beginning of a mark is held back."""

    def __init__(self):
        self._held, self._last = "", ""
        self._begins, self._fence = True, ""
        self._line = Run("")  # how the rest of this line is shown, where it is all one

    def push(self, text: str) -> list[Run]:
        """What can be told of now."""
        self._held += text
        return list(self._taken(final=False))

    def end(self) -> list[Run]:
        """What was held back."""
        return list(self._taken(final=True))

    def _taken(self, final: bool) -> Iterator[Run]:
        while self._held:
            if self._begins and not self._begin(final):
                return
            size, run = self._next(final)
            if size == 0:
                return
            taken, self._held = self._held[:size], self._held[size:]
            self._last, self._begins = taken[-1], taken[-1] == "\n"
            yield run

    def _begin(self, final: bool) -> bool:
        """Finds out what kind of line begins; False where more of it must come first."""
        line, newline, _ = self._held.partition("\n")
        fence, whole = FENCE.fullmatch(line), final or bool(newline)
        if not whole and (fence or UNDECIDED.fullmatch(line)):
            return False
        self._line = Run("", "bold" if HEADING.match(line) else "")
        if self._fence:
            self._line = Run("", "code", True)
            if fence and line.strip() == fence[1] and fence[1].startswith(self._fence):
                self._fence, self._line = "", Run("", "tool", True)
        elif fence:
            self._fence, self._line = fence[1], Run("", "tool", True)
        self._begins = False
        return True

    def _next(self, final: bool) -> tuple[int, Run]:
        """How many of the held characters come next, and as what; 0 where more must come first."""
        text, (_, style, verbatim) = self._held, self._line
        if style:
            size = text.find("\n") + 1 or len(text)
            return size, Run(text[:size], style, verbatim)
        place = re.search(r"[*`]", text)
        if place is None or place.start() > 0:
            size = place.start() if place else len(text)
            size = text.find("\n", 0, size) + 1 or size
            return size, Run(text[:size])
        if found := CODE.match(text):
            return found.end(), Run(found[1], "code")
        opens = not self._last.isalnum()  # 2**3 is a power
        if opens and (found := BOLD.match(text)):
            return found.end(), Run(found[2], "bold")
        marks = re.match(r"\*+|`+", text)[0]
        may_be = marks[0] == "`" or (opens and not re.match(r"\*(?!\*)\S|\*+\s|\* ", text))
        if may_be and not final and "\n" not in text and len(text) < PATIENCE:
            return 0, Run("")
        return len(marks), Run(marks)


class Wrap:
    """Runs -> what to write, so that no word is cut at the terminal's edge.

    `width`: asked anew for every word, since windows change. `column`: where the cursor is.
    """

    def __init__(self, width: Callable[[], int], styled: bool, column: int = 0):
        self._width, self._styled, self._column = width, styled, column
        self._style, self._hang, self._first = "", 0, True
        self._blank, self._word = "", []
        self._uncut = False  # in the middle of a word that is wider than the terminal

    def push(self, run: Run) -> str:
        """What can be written now: the last word of it must be whole first."""
        if run.verbatim:
            return self._flush() + self._verbatim(run)
        return "".join(self._pushed(char, run.style) for char in run.text)

    def end(self) -> str:
        """What was held back, and the plain style."""
        return self._flush() + self._paint("", "")

    def _pushed(self, char: str, style: str) -> str:
        if char == "\n":
            out, self._blank = self._flush(), ""
            self._column, self._hang, self._first = 0, 0, True
            return out + "\n"
        if char in " \t":
            out, self._uncut = self._flush(), False
            self._blank += "    " if char == "\t" else char
            return out
        out = self._flush() if self._word and _may_break(self._word[-1].text, char) else ""
        self._word.append(Run(char, style))
        if len(self._word) > self._width():
            out += self._flush()
            self._uncut = True
        return out

    def _flush(self) -> str:
        """The word that is waiting, in this line or the next."""
        if not self._word:
            return ""
        word = "".join(run.text for run in self._word)
        width, wide, blank = self._width(), cell_len(word), self._blank
        over = self._column + len(blank) + wide > width
        new_line = over and self._column > self._hang and not self._uncut
        lead = "\n" + " " * self._hang if new_line else blank
        column = (self._hang if new_line else self._column + len(blank)) + wide
        # The terminal itself goes on in the next line, with what comes after the last column.
        self._column = column if column <= width else (column - 1) % max(width, 1) + 1
        if self._first and len(blank) + 4 < width // 2:
            self._hang = len(blank) + (wide + 1 if MARKER.fullmatch(word) else 0)
        out = lead + "".join(self._paint(*run[:2]) for run in self._word)
        self._blank, self._word, self._first = "", [], False
        return out

    def _verbatim(self, run: Run) -> str:
        ended = run.text.endswith("\n")
        self._column, self._first, self._hang = 0 if ended else 1, ended, 0
        blank, self._blank = self._blank, ""
        return self._paint(blank + run.text, run.style)

    def _paint(self, text: str, style: str) -> str:
        if not self._styled or style == self._style:
            return text
        self._style = style
        return f"\x1b[{SGR[style]}m{text}"


def _may_break(before: str, after: str) -> bool:
    """Whether a line may end between two characters: beside wide ones, which have no blanks between
    them, but not within what is one character to a reader."""
    if not (cell_len(before) == 2 or cell_len(after) == 2):
        return False
    flag = after in FLAG_LETTERS and before in FLAG_LETTERS
    glued = flag or before == JOINER or cell_len(after) == 0 or after in SKIN_TONES
    return not (glued or after in NEVER_FIRST or before in NEVER_LAST)


class Typesetter:
    """The parts of one reply -> what to write; tool calls stand in brackets, `[12+30=42]`.

    `width`: of the terminal; None: of none, the text is written as it is.
    """

    def __init__(
        self, width: Callable[[], int] | None = None, styled: bool = False, column: int = 0
    ):
        self._kind: PartKind = "text"
        self._markup = Markup() if styled else None
        self._wrap = Wrap(width, styled, column) if width else None

    def push(self, part: Part) -> str:
        """What to write of the next piece."""
        runs = []
        if part.kind != self._kind:
            runs += self._held()
            opening = {"text": "]", "python": "[", "python_output": "="}[part.kind]
            if part.kind == "python" and self._kind == "python_output":
                opening = "] ["
            runs.append(Run(opening, "tool"))
            if part.kind == "text" and part.text[:1].strip():
                runs.append(Run(" "))
            self._kind = part.kind
        if part.kind != "text":
            runs.append(Run(part.text, "tool"))
        elif part.text:
            runs += self._markup.push(part.text) if self._markup else [Run(part.text)]
        return self._laid(runs)

    def end(self) -> str:
        """What was held back."""
        runs = self._held()
        if self._kind != "text":  # cut in the middle of a call
            runs.append(Run("]", "tool"))
        return self._laid(runs) + (self._wrap.end() if self._wrap else "")

    def _held(self) -> list[Run]:
        return self._markup.end() if self._markup else []

    def _laid(self, runs: list[Run]) -> str:
        return "".join(map(self._wrap.push, runs) if self._wrap else (run.text for run in runs))
