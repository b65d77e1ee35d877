"""Chat in the terminal: a conversation, a few commands, and replies that can be stopped."""

import contextlib
import dataclasses
import functools
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from typing import TextIO

from nanochat_jax.config.errors import start_logging
from nanochat_jax.config.serve import ChatCLI
from nanochat_jax.serve.engine import Engine
from nanochat_jax.serve.engine.prompt import ContextFull, fit_conversation
from nanochat_jax.serve.engine.requests import Generation, Request, derive_seed
from nanochat_jax.serve.engine.text import ReplyReader, join_parts
from nanochat_jax.serve.load import load
from nanochat_jax.serve.screen import Screen, heard
from nanochat_jax.tokenizer.chat_format import Message, Part

LEAVE_S = 2.0  # a second Ctrl-C within this many seconds leaves
QUOTES = '"""'
DIM, PLAIN = "\x1b[2m", "\x1b[0m"
ENDINGS = {"cancelled": " (stopped)", "length": " (cut: no room for more)"}
HELP = """\
  quit, exit, Ctrl-D     leave
  clear                  begin a new conversation
  /system [text]         what the assistant is told first (no text: show it; - : nothing)
  /temperature [0..2]    how varied replies are; 0 is always the likeliest
  /topk [0..200]         sample among the k likeliest tokens; 0: among all
  /help                  this list
  several lines: end a line with \\, or put the text between two lines of three quotes
  Ctrl-C                 stop a reply; at the prompt clear the line, twice to leave"""


class Leave(Exception):
    """The person wants to go."""


class Terminal:
    """One conversation. `read_line` shows a prompt and reads (EOFError at the end)."""

    def __init__(
        self, engine: Engine, cfg: ChatCLI, read_line: Callable[[str], str], out: TextIO,
        interactive: bool,
    ):  # fmt: skip
        self._engine, self._interactive = engine, interactive
        self._read_line = lambda prompt: heard(read_line(prompt))
        self.settings = dataclasses.replace(cfg, system=heard(cfg.system))
        self._say = functools.partial(print, file=out, flush=True)
        self.messages: list[Message] = []
        self._turns = 0

    def run(self) -> None:
        """Talks until the person leaves or the input ends."""
        if self._interactive:
            self._say("Type a message. /help lists the commands, Ctrl-D leaves.")
        interrupted = float("-inf")
        while True:
            try:
                self.handle(self._read())
            except (EOFError, Leave):
                return self._say("") if self._interactive else None
            except KeyboardInterrupt:
                if not self._interactive:
                    raise
                if time.monotonic() - interrupted < LEAVE_S:
                    return self._say("")
                interrupted = time.monotonic()
                self._say("\n(Ctrl-C again, Ctrl-D or quit leaves)")

    def handle(self, text: str) -> None:
        """Obeys a command or answers a message; blank text does nothing."""
        word, _, rest = text.strip().partition(" ")
        if not word:
            return
        if text.strip().lower() in ("quit", "exit", "/quit", "/exit"):
            raise Leave
        if text.strip().lower() in ("clear", "/clear"):
            self.messages = []
            return self._say("(a new conversation)")
        commands = {
            "/help": lambda _: self._say(HELP),
            "/system": self._set_system,
            "/temperature": lambda value: self._set("temperature", value, float, 0.0, 2.0),
            "/topk": lambda value: self._set("top_k", value, int, -1, 200),
        }
        if word in commands:
            return commands[word](rest.strip())
        if word.startswith("/") and word[1:].isalpha():
            return self._say(f"there is no command {word}; /help lists those there are")
        self.answer(text)

    def answer(self, text: str) -> None:
        """Says the reply to `text` while it comes; both join the conversation."""
        self.messages.append(Message("user", text))
        system = [Message("system", self.settings.system)] if self.settings.system else []
        try:
            prompt = fit_conversation(
                self._engine.tokenizer, [*system, *self.messages],
                self._engine.max_len, self.settings.max_tokens,
            )  # fmt: skip
        except ContextFull as error:
            self.messages.pop()
            return self._say(f"({error})")
        if prompt.dropped:
            # For good: to keep them would say it again, and encode them again, at every turn.
            del self.messages[: prompt.dropped]
            self._say(f"(the oldest {prompt.dropped} messages no longer fit and are forgotten)")
        self.messages.append(Message("assistant", join_parts(self._reply(prompt.tokens))))

    # Reading.

    def _read(self) -> str:
        """One message: a line, lines joined by a backslash at their end, or a quoted block."""
        line = self._read_line("\nUser: " if self._interactive else "")
        if line.strip() == QUOTES:
            return "\n".join(iter(self._more, None))
        lines = [line]
        while lines[-1] is not None and lines[-1].endswith("\\"):
            lines[-1] = lines[-1][:-1]
            lines.append(self._more())
        return "\n".join(line for line in lines if line is not None)

    def _more(self) -> str | None:
        """A further line of a message; None at closing quotes, and where the input ends: what was
        typed until then is answered."""
        try:
            line = self._read_line("... " if self._interactive else "")
        except EOFError:
            return None
        return None if line.strip() == QUOTES else line

    # Replying.

    def _reply(self, tokens: list[int]) -> list[Part]:
        """Shows the reply while it comes; returns it whole, as far as it came."""
        cfg, seed = self.settings, derive_seed(self.settings.seed, self._turns)
        how = (cfg.max_tokens, cfg.temperature, cfg.top_k, cfg.top_p, seed)
        self._turns += 1  # another seed each turn: the same question may get another answer
        pieces: list[Part] = []
        screen = Screen()
        with _interrupts_as_flag() as interrupted:
            if self._interactive:
                self._say("\nAssistant: ", end="")
            generation = self._engine.submit(Request(tuple(tokens), *how))
            for piece in self._pieces(generation, interrupted):
                shown = piece._replace(text=screen.shown(piece.text))
                self._show(shown, pieces[-1].kind if pieces else "text")
                pieces.append(piece)
        if pieces:
            self._show(Part("text", screen.end()), pieces[-1].kind)
        self._say(ENDINGS.get(generation.finish_reason, "") if self._interactive else "")
        if interrupted() and not self._interactive:
            raise KeyboardInterrupt  # nobody is there to type the next message
        return pieces

    def _pieces(self, generation: Generation, interrupted: Callable[[], bool]) -> Iterator[Part]:
        """The reply as it comes, until it ends or is interrupted."""
        reader, seen = ReplyReader(self._engine.tokenizer), 0
        while not generation.done:
            self._engine.tick()
            for token in generation.tokens[seen:]:
                yield from reader.push(token.id)
            seen = len(generation.tokens)
            if interrupted():
                generation.cancel()  # the next tick frees the slot and ends the loop
        yield from reader.finish()

    def _show(self, piece: Part, before: str) -> None:
        """Writes a piece; tool calls stand dimmed in brackets, `[12+30=42]`."""
        text = piece.text
        if piece.kind != before:
            dim, plain = (DIM, PLAIN) if self._interactive else ("", "")
            begin = dim if before == "text" else ""
            end = "]" + plain + (" " if text[:1].strip() else "")
            opening = {"text": end, "python": begin + "[", "python_output": begin + "="}
            text = opening[piece.kind] + text
        self._say(text, end="")

    # Commands.

    def _set_system(self, text: str) -> None:
        if text:
            self.settings = dataclasses.replace(self.settings, system="" if text == "-" else text)
        self._say(f"system: {self.settings.system or '(nothing)'}")

    def _set(self, name: str, value: str, kind: type, low: float, high: float) -> None:
        if value:
            try:
                number = kind(value)
            except ValueError:
                number = high + 1
            if not low <= number <= high:
                return self._say(f"{name} must be a number from {low} to {high}, not {value!r}")
            self.settings = dataclasses.replace(self.settings, **{name: number})
        self._say(f"{name}: {getattr(self.settings, name)}")


@contextlib.contextmanager
def _interrupts_as_flag() -> Iterator[Callable[[], bool]]:
    """While it lasts, Ctrl-C only sets the flag that is returned.

    Raised in the middle of a dispatch it would leave the engine's rows and its cache at odds.
    """
    seen = []
    try:
        before = signal.signal(signal.SIGINT, lambda *_: seen.append(True))
    except ValueError:  # not the main thread: nobody can press Ctrl-C here
        yield lambda: False
        return
    try:
        yield lambda: bool(seen)
    finally:
        signal.signal(signal.SIGINT, before)


def chat(cfg: ChatCLI) -> None:
    """One answer, or a conversation until the person leaves: what `scripts.chat_cli` runs."""
    start_logging()
    engine = new_engine(cfg)
    interactive = sys.stdin.isatty() and sys.stdout.isatty() and not cfg.prompt
    sys.stdout.reconfigure(errors="replace")
    if not cfg.prompt:
        sys.stdin.reconfigure(errors="surrogateescape")  # what `heard` expects
    if interactive:  # imported elsewhere it writes escape sequences into pipes
        with contextlib.suppress(ImportError):
            import readline  # noqa: F401  (arrow keys and history in input())
    terminal = Terminal(engine, cfg, input, sys.stdout, interactive)
    try:
        terminal.answer(heard(cfg.prompt)) if cfg.prompt else terminal.run()
    except BrokenPipeError:  # the reader of our output has left
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def new_engine(cfg: ChatCLI) -> Engine:
    """The engine of one chat. It alone holds weights: not also the model as it was read."""
    loaded = load(cfg)
    return Engine(loaded.model, loaded.tokenizer, slots=1, int8=cfg.int8)
