"""Chat in the terminal: a conversation, a few commands, and replies that can be stopped."""

import contextlib
import dataclasses
import os
import random
import signal
import sys
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple, TextIO

from nanochat_jax.config.decoding import ADJUSTMENTS, adjusts
from nanochat_jax.config.errors import start_logging
from nanochat_jax.config.gpt import param_counts
from nanochat_jax.config.serve import ChatCLI
from nanochat_jax.serve import commands
from nanochat_jax.serve.commands import COMMANDS
from nanochat_jax.serve.engine import Engine
from nanochat_jax.serve.engine.prompt import ContextFull, fit_conversation
from nanochat_jax.serve.engine.requests import Generation, Request, derive_seed
from nanochat_jax.serve.engine.text import ReplyReader, join_parts
from nanochat_jax.serve.load import Loaded, load
from nanochat_jax.serve.screen import Screen, heard
from nanochat_jax.serve.startup import Loading
from nanochat_jax.serve.typeset import Typesetter
from nanochat_jax.stopping import at_once
from nanochat_jax.tokenizer.chat_format import Message, Part

LEAVE_S = 2.0  # a second Ctrl-C within this many seconds leaves
QUOTES = '"""'
USER, ASSISTANT = "User: ", "Assistant: "
BLUE, GREEN, DIM, PLAIN = "\x1b[1;34m", "\x1b[1;32m", "\x1b[2m", "\x1b[0m"
ENDINGS = {"cancelled": " (stopped)", "length": " (cut: no room for more)"}
NOTHING_ASKED = "nothing was asked: no message on the standard input"
HELP = """\
  without its value a command shows what holds
  several lines: end a line with \\, or put the text between two lines of three quotes
  a blank before a slash makes the line a message; quit, exit and clear need no slash
  Tab completes a command, Ctrl-D leaves, Ctrl-C stops a reply; at the prompt it clears
  the line, twice it leaves"""


class Leave(Exception):
    """The person wants to go."""


class Look(NamedTuple):
    """How wide the terminal is just now (None: there is none), and whether it has colours."""

    width: Callable[[], int] | None = None
    styled: bool = False


NO_LOOK = Look()


class Terminal:
    """One conversation. `read_line` shows a prompt and reads (EOFError at the end).

    Replies go to `out`. So does all else where a person types; else to the standard error, so that
    a pipe gets replies alone. `ready` is called before anything is written. `refused`, `turns`:
    messages that were not answered, and that were.
    """

    def __init__(
        self, engine: Engine, cfg: ChatCLI, read_line: Callable[[str], str], out: TextIO,
        interactive: bool, look: Look = NO_LOOK, ready: Callable[[], None] = lambda: None,
    ):  # fmt: skip
        self._engine, self._interactive, self._look = engine, interactive, look
        self._read_line = lambda prompt: heard(read_line(prompt))
        seed = cfg.seed if cfg.seed >= 0 else random.SystemRandom().getrandbits(31)
        self.settings = dataclasses.replace(cfg, system=heard(cfg.system), seed=seed)
        self._out, self._ready = out, ready
        self.messages: list[Message] = []
        self.biases: dict[int, float] = {}
        self.turns = self.refused = 0

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
        bare = text.strip().lower()
        if bare in ("quit", "exit", "/exit"):
            raise Leave
        if called := ("clear", "") if bare == "clear" else commands.called(text):
            return self._obey(*called)
        if bare:
            try:
                self.answer(text)
            except ContextFull as error:
                self.refused += 1
                self._note(f"({error})")

    def answer(self, text: str) -> None:
        """Says the reply to `text` while it comes; both join the conversation.

        Raises ContextFull for a message that is too long for the model.
        """
        told = [Message("system", self.settings.system)] if self.settings.system else []
        prompt = fit_conversation(
            self._engine.tokenizer, [*told, *self.messages, Message("user", text)],
            self._engine.max_len, self.settings.max_tokens,
        )  # fmt: skip
        self.messages.append(Message("user", text))
        if prompt.dropped:
            # For good: to keep them would say it again, and encode them again, at every turn.
            del self.messages[: prompt.dropped]
            self._note(f"(the oldest {prompt.dropped} messages no longer fit and are forgotten)")
        self.messages.append(Message("assistant", join_parts(self._reply(prompt.tokens))))

    # Writing.

    def _say(self, text: str, end: str = "\n") -> None:
        self._ready()
        print(text, end=end, file=self._out, flush=True)

    def _note(self, text: str) -> None:
        self._ready()
        print(text, file=self._out if self._interactive else sys.stderr, flush=True)

    # Reading.

    def _read(self) -> str:
        """One message: a line, lines joined by a backslash at their end, or a quoted block."""
        # \1 and \2 tell readline what takes no room in its line.
        colour = "\n\1" + BLUE + "\2" + USER + "\1" + PLAIN + "\2"
        prompt = colour if self._look.styled else "\n" + USER
        line = self._read_line(prompt if self._interactive else "")
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
        cfg, seed = self.settings, derive_seed(self.settings.seed, self.turns)
        how = (cfg.max_tokens, cfg.temperature, cfg.top_k, cfg.top_p, seed)
        more = {name: getattr(cfg, name) for name in ADJUSTMENTS} | {"logit_bias": self.biases}
        self.turns += 1  # another seed each turn: the same question may get another answer
        pieces: list[Part] = []
        column = len(ASSISTANT) if self._interactive else 0
        screen, typesetter = Screen(), Typesetter(*self._look, column)
        with _interrupts_as_flag() as interrupted:
            if self._interactive:
                name = GREEN + ASSISTANT + PLAIN if self._look.styled else ASSISTANT
                self._say("\n" + name, end="")
            generation = self._engine.submit(Request(tuple(tokens), *how, **more))
            for piece in self._pieces(generation, interrupted):
                shown = piece._replace(text=screen.shown(piece.text))
                self._say(typesetter.push(shown), end="")
                pieces.append(piece)
        if pieces:
            self._say(typesetter.push(Part(pieces[-1].kind, screen.end())), end="")
        self._say(typesetter.end(), end="")
        ending = ENDINGS.get(generation.finish_reason, "") if self._interactive else ""
        self._say(DIM + ending + PLAIN if ending and self._look.styled else ending)
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

    # Commands.

    def _obey(self, word: str, value: str) -> None:
        if word not in COMMANDS:
            return self._note(commands.unknown(word))
        if COMMANDS[word].setting:
            return self._set(COMMANDS[word], value)
        if word == "quit":
            raise Leave
        if word == "help":
            return self._note(f"{commands.listed()}\n{HELP}")
        if word == "system":
            return self._set_system(value)
        if word == "bias":
            return self._set_biases(value)
        self.messages = []
        self._note("(a new conversation)")

    def _set_system(self, text: str) -> None:
        if text:
            self.settings = dataclasses.replace(self.settings, system="" if text == "-" else text)
        self._note(f"system: {self.settings.system or '(nothing)'}")

    def _set_biases(self, text: str) -> None:
        if text:
            try:
                new = commands.biases("" if text == "-" else text)
                self._engine.check(Request((0,), logit_bias=new))
            except ValueError as error:
                return self._note(str(error))
            self.biases = new
        listed = (f"{token}: {bias:g}" for token, bias in self.biases.items())
        self._note(f"bias: {', '.join(listed) or 'none'}")

    def _set(self, command: commands.Command, value: str) -> None:
        if value:
            try:
                changed = {command.setting: command.number(value)}
            except ValueError as error:
                return self._note(str(error))
            self.settings = dataclasses.replace(self.settings, **changed)
        self._note(f"{command.word}: {getattr(self.settings, command.setting)}")


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


def chat(cfg: ChatCLI, loading: Loading) -> int:
    """One answer, or a conversation until the person leaves: what `scripts.chat_cli` runs.

    `loading` ends when the model is ready. Returns the exit code: 1 where a piped message was
    refused, 2 where there was none. Raises ContextFull when the one question is too long.
    """
    start_logging()
    interactive = sys.stdin.isatty() and sys.stdout.isatty() and cfg.prompt is None
    with at_once():
        engine, banner = new_engine(cfg, loading, warm=interactive)
    sys.stdout.reconfigure(errors="replace")
    terminal = Terminal(
        engine, cfg, input, sys.stdout, interactive, look_of(sys.stdout), loading.ready
    )
    try:
        if cfg.prompt is not None:
            terminal.answer(heard(cfg.prompt))
            return 0
        sys.stdin.reconfigure(errors="surrogateescape")  # what `heard` expects
        if interactive:
            _use_readline()
            loading.ready()
            print(banner, flush=True)
        terminal.run()
    except BrokenPipeError:  # the reader of our output has left
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    if interactive or terminal.turns:
        return 1 if terminal.refused and not interactive else 0
    print(f"error: {NOTHING_ASKED}", file=sys.stderr)
    return 2


def new_engine(cfg: ChatCLI, loading: Loading, warm: bool) -> tuple[Engine, str]:
    """The engine of one chat, compiled if `warm`, and what a person reads of it. It alone holds
    weights: not also the model as it was read."""
    loading.phase("reading the weights")
    loaded = load(cfg)
    engine = Engine(loaded.model, loaded.tokenizer, slots=1, int8=cfg.int8)
    banner = describe(loaded, cfg, engine.max_len)
    del loaded
    loading.phase("compiling")  # without `warm` what the first reply needs, when it is asked for
    if warm:
        engine.warm_up(scores=False, adjusts=adjusts(cfg))
    return engine, banner


def describe(loaded: Loaded, cfg: ChatCLI, context: int) -> str:
    """`nanochat-sft-d4: stage sft, step 490, 1.1 million parameters, context 256 tokens, on cpu`"""
    count = param_counts(loaded.model.cfg)["total"]
    size = f"{count / 1e9:.1f} billion" if count >= 1e9 else f"{count / 1e6:.1f} million"
    return (
        f"{loaded.name}: stage {cfg.source}, step {loaded.step}, {size} parameters, "
        f"context {context} tokens, on {loaded.kind}"
    )


def look_of(out: TextIO) -> Look:
    """How `out` may be written to. Colours as https://no-color.org and `TERM` have it."""
    if not out.isatty():
        return Look()
    styled = not os.environ.get("NO_COLOR") and os.environ.get("TERM") not in ("", "dumb", None)
    return Look(lambda: os.get_terminal_size(out.fileno()).columns or 80, styled)


def _use_readline() -> None:
    """Arrow keys, history and completed commands in `input`, where Python was built with it."""
    try:
        import readline  # imported elsewhere it writes escape sequences into pipes
    except ImportError:
        return

    def completed(text: str, n: int) -> str | None:
        first = text.startswith("/") and readline.get_begidx() == 0
        known = [word for word in COMMANDS if first and f"/{word}".startswith(text)]
        return f"/{known[n]}" if n < len(known) else None

    readline.set_completer(completed)
    readline.set_completer_delims(" \t\n")
    libedit = "libedit" in (readline.__doc__ or "")
    readline.parse_and_bind("bind ^I rl_complete" if libedit else "tab: complete")
