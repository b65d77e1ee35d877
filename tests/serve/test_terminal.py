import contextlib
import fcntl
import io
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import termios
import threading
import time

import pytest

from nanochat_jax.config.decoding import ADJUSTMENTS
from nanochat_jax.config.serve import ChatCLI
from nanochat_jax.serve import startup
from nanochat_jax.serve import terminal as programs
from nanochat_jax.serve.commands import COMMANDS
from nanochat_jax.serve.engine import Engine
from nanochat_jax.serve.engine.prompt import ContextFull
from nanochat_jax.serve.load import Loaded
from nanochat_jax.serve.startup import loading
from nanochat_jax.serve.terminal import Terminal
from tests.serve.read_weights import ReadWeights
from tests.serve.world import BYTES, spoken, talking_model


@pytest.fixture(scope="module")
def engine():
    said = spoken("Rosa has <<72+66>> That is it.")
    return Engine(talking_model(said, sequence_len=128), BYTES, slots=1)


def talk(engine, *lines, interactive=False, **flags):
    """What the terminal writes when a person types `lines` and then closes the input."""
    left, out = list(lines), io.StringIO()

    def ask(_):
        if not left:
            raise EOFError
        line = left.pop(0)
        if line is KeyboardInterrupt:
            raise KeyboardInterrupt
        return line

    terminal = Terminal(engine, ChatCLI(max_tokens=64, **flags), ask, out, interactive)
    terminal.run()
    return out.getvalue(), terminal, left


def test_a_chat_holds_the_weights_in_8_bits_alone(monkeypatch):
    read, found = ReadWeights(monkeypatch, programs), []
    monkeypatch.setattr(programs, "start_logging", lambda: None)
    monkeypatch.setattr(Terminal, "answer", lambda *_: found.append(read.alive()))
    programs.chat(ChatCLI(prompt="hi", int8=True), loading(ChatCLI(), io.StringIO()))
    assert found == [0]


def test_a_reply_shows_its_tool_call_and_ends_with_the_input(engine):
    out, terminal, _ = talk(engine, "How many?", "")
    assert out == "Rosa has [72+66=138] That is it.\n"
    parts = terminal.messages[-1].content
    assert [part["type"] for part in parts] == ["text", "python", "python_output", "text"]


@pytest.mark.parametrize("word", ["quit", "exit", "/quit", " QUIT "])
def test_quit_leaves_and_reads_no_further(engine, word):
    assert talk(engine, word, "more")[2] == ["more"]


@pytest.mark.parametrize("word", ["clear", "/clear", "/CLEAR "])
def test_clear_forgets_and_blank_lines_do_nothing(engine, capsys, word):
    _, terminal, _ = talk(engine, "hi", "  ", word)
    assert terminal.messages == [] and "new conversation" in capsys.readouterr().err


def test_commands_change_the_settings_and_refuse_what_is_out_of_range(engine, capsys):
    _, terminal, _ = talk(
        engine,
        "/temperature 0",
        "/temperature 9",
        "/topk 0",
        "/topk 7",
        "/topk x",
        "/maxtokens 9",
        "/system Be\nbrief.",
    )
    settings = terminal.settings
    assert (settings.temperature, settings.top_k, settings.max_tokens) == (0.0, 7, 9)
    err = capsys.readouterr().err
    assert settings.system == "Be\nbrief." and "from 0 to 2" in err and "topk: 0\n" in err
    assert "must be a whole number from 0 to 200, not 'x'" in err
    assert talk(engine, "/system -", system="x")[1].settings.system == ""


def test_flags_and_commands_against_loops_reach_the_engine(engine, monkeypatch):
    asked, submit = [], engine.submit
    monkeypatch.setattr(engine, "submit", lambda request: asked.append(request) or submit(request))
    flags = {"repetition_penalty": 1.2, "presence_penalty": 0.5, "frequency_penalty": -1.0}
    talk(engine, "hi", min_p=0.1, **flags)
    (request,) = asked
    assert flags.items() <= vars(request).items() and request.min_p == 0.1
    words = [
        "/minp 0.2",
        "/repetition 1.1",
        "/presence 2",
        "/frequency -2",
        "/bias 65: -100, 66 :.5",
    ]
    talk(engine, *words, "hi")
    settled = {
        "repetition_penalty": 1.1,
        "presence_penalty": 2,
        "frequency_penalty": -2,
        "min_p": 0.2,
    }
    assert {**settled, "logit_bias": ((65, -100.0), (66, 0.5))}.items() <= vars(asked[-1]).items()
    talk(engine, "/bias 65: 1", "/bias -", "hi")
    assert not asked[-1].adjusts


def test_words_against_loops_have_the_ranges_of_requests_and_say_them(engine, capsys):
    named = {command.setting: command for command in COMMANDS.values()}
    for name, (low, high, _) in ADJUSTMENTS.items():
        assert (named[name].low, named[name].high) == (low, high)
        assert named[name].value == f"{low:g} to {high:g}" and not named[name].whole
    talk(engine, "/repetition 0", "/bias 65", "/bias 65: 101", "/bias 999: 1", "/bias")
    said = capsys.readouterr().err.splitlines()
    expected = ("from 0.01 to 10", "like 17: -100", "from -100 to 100", "0..264", "bias: none")
    assert all(part in line for part, line in zip(expected, said, strict=True))


def test_a_word_that_is_no_command_is_a_hint_and_a_blank_before_it_makes_it_a_message(
    engine, capsys
):
    _, terminal, _ = talk(engine, "/temprature 0", "/no")
    err = capsys.readouterr().err
    assert "did you mean '/temperature'?" in err and "/topk" in err and not terminal.messages
    _, terminal, _ = talk(engine, " /help", "clear", "/usr/bin is what?")
    assert terminal.messages[0].content == "/usr/bin is what?" and terminal.turns == 2


def test_help_lists_every_word_that_there_is(engine):
    out, _, _ = talk(engine, "/help", interactive=True)
    assert all(f"\n  /{word} " in f"\n{out}" for word in COMMANDS)


def test_a_session_draws_its_own_seed_unless_one_is_given(engine):
    seed = lambda **flags: (
        Terminal(engine, ChatCLI(**flags), input, io.StringIO(), False).settings.seed
    )
    assert len({seed() for _ in range(4)}) > 1 and seed(seed=7) == seed(seed=7) == 7


def test_a_blank_question_is_refused():
    for prompt in ("", " \n"):
        with pytest.raises(ValueError, match="-p is empty"):
            ChatCLI(prompt=prompt)


def test_several_lines_are_one_message(engine):
    _, terminal, _ = talk(engine, "a \\", "b", '"""', "c", "d", '"""')
    assert [m.content for m in terminal.messages if m.role == "user"] == ["a \nb", "c\nd"]


def test_a_message_that_the_end_of_input_cuts_is_answered_all_the_same(engine):
    for lines in (['"""', "a", "b"], ["a\\", "b\\"]):
        _, terminal, _ = talk(engine, *lines)
        assert [m.content for m in terminal.messages if m.role == "user"] == ["a\nb"]


def test_an_interrupt_ends_the_program_where_nobody_types(engine):
    with pytest.raises(KeyboardInterrupt):
        talk(engine, "hi", KeyboardInterrupt, "more")


def test_what_no_longer_fits_is_forgotten_and_said_and_a_pipe_gets_replies_alone(engine, capsys):
    out, terminal, _ = talk(engine, "x" * 40, "y" * 40)
    assert "2 messages no longer fit" in capsys.readouterr().err
    assert terminal.messages[0].content == "y" * 40 and terminal.refused == 0
    out, terminal, _ = talk(engine, "z" * 200)
    assert terminal.messages == [] and (terminal.refused, terminal.turns, out) == (1, 0, "")
    assert "shorten it" in capsys.readouterr().err
    assert "shorten it" in talk(engine, "z" * 200, interactive=True)[0]


@pytest.fixture
def typed(monkeypatch):
    """What `chat` writes to the standard output and error, and its code, for flags and input."""

    def run(said, text="", **flags):
        model = talking_model(spoken(said), sequence_len=64)
        monkeypatch.setattr(programs, "load", lambda _: Loaded(model, BYTES, "cpu", "x", 3))
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text.encode()), "utf-8"))
        monkeypatch.setattr(programs, "input", lambda _: _line(sys.stdin), raising=False)
        monkeypatch.setattr(programs, "start_logging", lambda: None)
        cfg = ChatCLI(**flags)
        return programs.chat(cfg, loading(cfg, io.StringIO()))

    return run


def _line(file):
    if line := file.readline():
        return line.rstrip("\n")
    raise EOFError


def test_a_question_that_is_too_long_ends_a_call_and_is_counted_in_a_pipe(typed, capsys):
    with pytest.raises(ContextFull, match="context is 64"):
        typed("Yes.", prompt="z" * 200)
    assert typed("Yes.", text="z" * 200 + "\nhi\n") == 1
    assert capsys.readouterr().out == "Yes.\n"
    assert typed("Yes.", text="hi\n") == typed("Yes.", prompt="hi") == 0
    for nothing in ("", "\n \n", "/temperature 1\n"):
        assert typed("Yes.", text=nothing) == 2
        assert "nothing was asked" in capsys.readouterr().err


def test_one_interrupt_at_the_prompt_says_how_to_leave_and_a_second_leaves(engine):
    out, _, left = talk(engine, KeyboardInterrupt, KeyboardInterrupt, "more", interactive=True)
    assert "Ctrl-C again" in out and left == ["more"]
    _, _, left = talk(engine, KeyboardInterrupt, "hi", "quit", interactive=True)
    assert left == []


def test_an_interrupt_in_a_reply_stops_the_reply_alone():
    class Slow(Engine):
        def tick(self):
            time.sleep(0.05)
            return super().tick()

    engine = Slow(talking_model(spoken("a" * 100), sequence_len=256), BYTES, slots=1, steps=2)
    engine.complete([[256]], 2)
    timer = threading.Timer(0.4, lambda: os.kill(os.getpid(), signal.SIGINT))
    timer.start()
    out, terminal, _ = talk(engine, "hi", "quit", interactive=True)
    assert "a (stopped)" in out
    assert 0 < len(terminal.messages[-1].content[0]["text"]) < 60


def test_a_reply_is_shown_without_what_would_steer_the_terminal():
    reply = BYTES.encode("a\x1b[2J👨\u200d👧\r\nb\r")
    engine = Engine(talking_model(reply, sequence_len=64), BYTES, slots=1, steps=1)
    assert talk(engine, "hi")[0] == "a\ufffd[2J👨\u200d👧\nb\n\n"


def test_what_was_piped_with_bad_bytes_or_a_byte_order_mark_is_read(engine):
    _, terminal, _ = talk(engine, "\ufeffcaf\udce9", "clear", "\udce4\udcbd?", system="\udce9")
    assert terminal.messages[0].content == "\ufffd?" and terminal.settings.system == "\ufffd"


def test_help_and_the_line_that_is_shown_while_a_model_loads_need_no_jax():
    begin = (
        "import sys; sys.argv=['x']; from scripts import chat_cli as a, chat_web as b;"
        "from nanochat_jax.serve.startup import loading;"
        "from nanochat_jax.config.resolve import resolve;"
        "print(loading(resolve('chat_cli', []), sys.stderr)._line());"
        "assert 'jax' not in sys.modules; {}.main(['--help'])"
    )
    for program in "ab":
        run = subprocess.run(
            [sys.executable, "-c", begin.format(program)], capture_output=True, text=True
        )
        assert run.returncode == 0 and "--temperature" in run.stdout, run.stderr
        assert ": starting JAX, 0 s" in run.stdout


def test_the_line_names_the_checkpoint_and_what_it_took_the_last_time(tmp_path, monkeypatch):
    monkeypatch.setenv("NANOCHAT_BASE_DIR", str(tmp_path))
    monkeypatch.setenv("TERM", "dumb")
    (tmp_path / "chatsft_checkpoints" / "d4" / "000490").mkdir(parents=True)
    (tmp_path / "chatsft_checkpoints" / "d4" / "000490" / "meta.json").write_text("{}")
    with Screenful(60) as screen, loading(ChatCLI(), screen.out) as line:
        line.phase("compiling")
        line.ready()
    begun = "nanochat-sft-d4, step 490: starting JAX, 0 s "
    assert screen.text == begun + "(the first time it is compiled, which may take a minute)\r\n"
    monkeypatch.setattr("time.monotonic", iter((10.0, 16.2, 20.0, 21.0)).__next__)
    with loading(ChatCLI(), io.StringIO()) as line:
        line.ready()
    assert loading(ChatCLI(), io.StringIO())._line() == begun.replace(" 0 s", " 1 s") + "of about 6"


def test_the_line_is_not_drawn_again_after_it_has_ended(tmp_path, monkeypatch):
    """The thread is held in the middle of a drawing, with the width known, until the end was
    asked for."""
    monkeypatch.setenv("NANOCHAT_BASE_DIR", str(tmp_path))
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(startup, "TICK_S", 0.0)
    drawing, real = threading.Event(), os.get_terminal_size

    def slow(number):
        if threading.current_thread() is not threading.main_thread():
            drawing.set()
            time.sleep(0.2)
        return real(number)

    monkeypatch.setattr(os, "get_terminal_size", slow)
    with Screenful(60) as screen, loading(ChatCLI(), screen.out) as line:
        assert drawing.wait(10)
        line.ready()
        time.sleep(0.4)
    assert "starting JAX" in screen.text and screen.text.endswith(startup.ERASE)


class Screenful:
    """A pseudo-terminal of some width: `out` writes to it, `text` is what came of that."""

    def __init__(self, width):
        self._fd, terminal = pty.openpty()
        self.resize(width)
        self.out, self.text = os.fdopen(terminal, "w"), ""

    def resize(self, width):
        fcntl.ioctl(self._fd, termios.TIOCSWINSZ, struct.pack("HHHH", 24, width, 0, 0))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.out.close()
        with contextlib.suppress(OSError):  # the other end is closed
            while raw := os.read(self._fd, 4096):
                self.text += raw.decode()
        os.close(self._fd)


SAID = "**Rosa** has <<72+66>> books, which she reads again and again.\n```\nx  =  1\n```"


@pytest.mark.parametrize(
    "term, no_color, styled", [("xterm", "", True), ("xterm", "1", False), ("dumb", "", False)]
)
def test_a_terminal_gets_whole_words_and_colours_where_they_are_wanted(
    monkeypatch, term, no_color, styled
):
    monkeypatch.setenv("TERM", term)
    monkeypatch.setenv("NO_COLOR", no_color)
    engine = Engine(talking_model(spoken(SAID), sequence_len=256), BYTES, slots=1)
    lines = ["hi", "hi", "quit"]

    with Screenful(30) as screen:

        def typed(prompt):
            screen.resize(30 if len(lines) == 3 else 20)
            print(prompt, file=screen.out, flush=True)
            return lines.pop(0)

        cfg, look = ChatCLI(max_tokens=200), programs.look_of(screen.out)
        Terminal(engine, cfg, typed, screen.out, True, look).run()
    shown, marks = re.sub(r"\x1b\[[0-9;]*m|[\1\2]", "", screen.text).replace("\r", ""), SAID[:8]
    assert ("\x1b[0;1mRosa" in screen.text) == styled and ("\x1b" in screen.text) == styled
    name = "Rosa" if styled else marks
    assert f"Assistant: {name} has\n[72+66=138] books" in shown
    assert "books, which she\nreads again and again.\n```\nx  =  1\n```\n" in shown
    narrower = "books,\nwhich she reads\nagain" if styled else "books, which she\nreads again and\n"
    assert narrower in shown
