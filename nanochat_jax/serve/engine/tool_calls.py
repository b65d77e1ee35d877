"""Tool calls of one reply: which tokens are a call, and which tokens its result forces.

The model writes a call between two markers. When the second one comes, the tool runs on the text
between them, and its result follows as forced tokens between markers of its own. The row is fed
those like any others, but the model did not choose them (mask 0).
Source: nanochat:nanochat/engine.py (`RowState` and the loop of `generate`).
"""

import itertools
from collections import deque
from collections.abc import Sequence

from nanochat_jax.serve.engine.tools import Tool
from nanochat_jax.tokenizer import Tokenizer
from nanochat_jax.tokenizer.chat_format import (
    ASSISTANT_START,
    OUTPUT_END,
    OUTPUT_START,
    PYTHON_END,
    PYTHON_START,
)


class ToolCalls:
    """The state machine of one reply after `prompt`, which may itself end within a call."""

    def __init__(self, tokenizer: Tokenizer, tool: Tool, prompt: Sequence[int] = ()):
        self._tokenizer, self._tool = tokenizer, tool
        special = tokenizer.encode_special
        self._start, self._end = special(PYTHON_START), special(PYTHON_END)
        self._call = self._unfinished(prompt)
        self._forced: deque[int] = deque()

    @property
    def in_call(self) -> bool:
        """Whether the next token belongs to a call, or closes it."""
        return self._call is not None

    def forced(self, most: int) -> list[int]:
        """The next tokens as far as a result forces them, `most` of them at most."""
        return list(itertools.islice(self._forced, most))

    def follow(self, token: int) -> bool:
        """Takes in the reply's next token; whether the model chose it."""
        # Forced tokens pass through the machine too, though a result never opens a call: its text
        # is encoded without special tokens.
        sampled = not self._forced
        if not sampled:
            self._forced.popleft()
        if token == self._start:
            self._call = []
        elif token == self._end:
            self._run()
        elif self._call is not None:
            self._call.append(token)
        return sampled

    def _run(self) -> None:
        """Runs the call that has ended, if one was open and has any text."""
        call, self._call = self._call, None
        # An empty call is no call, as in the original.
        result = self._tool(self._tokenizer.decode(call)) if call else None
        if result is not None:
            start, end = map(self._tokenizer.encode_special, (OUTPUT_START, OUTPUT_END))
            self._forced.extend([start, *self._tokenizer.encode(str(result)), end])

    def _unfinished(self, prompt: Sequence[int]) -> list[int] | None:
        """The text so far of a call that the prompt ends within, as tokens; None: in none."""
        # Only within the assistant's last message: a call that an earlier one left open is over.
        borders = self._end, self._tokenizer.encode_special(ASSISTANT_START)
        for i in range(len(prompt) - 1, -1, -1):
            if prompt[i] in borders:
                return None
            if prompt[i] == self._start:
                return list(prompt[i + 1 :])
        return None
