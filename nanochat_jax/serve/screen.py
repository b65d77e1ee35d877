"""Text between a terminal and a model: no byte breaks what is read, no reply steers the screen."""

import io
import re

# Escape sequences begin with a control (C0, DEL, C1); overrides turn the order of what follows. All
# else is shown, also what has no width: joiners make letters and emoji, soft hyphens break words.
STEERS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202d\u202e\ud800-\udfff]")


class Screen:
    """The text of one reply as a terminal may show it, piece by piece.

    What would steer becomes U+FFFD, every line end `\\n`: a carriage return alone would write over
    what stands in its line.
    """

    def __init__(self):
        # A piece may end between the two characters of a line end.
        self._line_ends = io.IncrementalNewlineDecoder(None, translate=True)

    def shown(self, text: str) -> str:
        """What to show of the next piece."""
        return STEERS.sub("\ufffd", self._line_ends.decode(text))

    def end(self) -> str:
        """What was held back."""
        return self._line_ends.decode("", True)


def heard(text: str) -> str:
    """What a person typed, piped or named as a flag; bytes that are no UTF-8 become U+FFFD.

    `text`: as Python reads it with `surrogateescape`, which is how it reads flags.
    """
    whole = text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    return whole.removeprefix("\ufeff")  # files from Windows begin with it
