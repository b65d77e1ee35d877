import io
import os
import signal
import sys
import threading
import time

import pytest

from nanochat_jax.config.serve import ChatCLI
from nanochat_jax.serve import terminal as programs
from nanochat_jax.serve.engine import Engine
from nanochat_jax.serve.terminal import Terminal
from tests.serve.read_weights import ReadWeights
from tests.serve.world import BYTES, spoken, talking_model


@pytest.fixture(scope="module")
def engine():
    said = spoken("Rosa has <<72+66>> That is it.")
    return Engine(talking_model(said, sequence_len=128), BYTES, slots=1)


def talk(engine, *lines, interactive=False, system=""):
    """What the terminal writes when a person types `lines` and then closes the input."""
    left, out = list(lines), io.StringIO()

    def ask(_):
        if not left:
            raise EOFError
        line = left.pop(0)
        if line is KeyboardInterrupt:
            raise KeyboardInterrupt
        return line

    terminal = Terminal(engine, ChatCLI(max_tokens=64, system=system), ask, out, interactive)
    terminal.run()
    return out.getvalue(), terminal, left


def test_a_chat_holds_the_weights_in_8_bits_alone(monkeypatch):
    read, found = ReadWeights(monkeypatch, programs), []
    monkeypatch.setattr(programs, "start_logging", lambda: None)
    monkeypatch.setattr(Terminal, "answer", lambda *_: found.append(read.alive()))
    programs.chat(ChatCLI(prompt="hi", int8=True))
    assert found == [0]


def test_a_reply_shows_its_tool_call_and_ends_with_the_input(engine):
    out, terminal, _ = talk(engine, "How many?", "")
    assert out == "Rosa has [72+66=138] That is it.\n"
    parts = terminal.messages[-1].content
    assert [part["type"] for part in parts] == ["text", "python", "python_output", "text"]


@pytest.mark.parametrize("word", ["quit", "exit", "/quit", " QUIT "])
def test_quit_leaves_and_reads_no_further(engine, word):
    assert talk(engine, word, "more")[2] == ["more"]


def test_clear_forgets_and_blank_lines_do_nothing(engine):
    out, terminal, _ = talk(engine, "hi", "  ", "clear")
    assert terminal.messages == [] and "new conversation" in out


def test_commands_change_the_settings_and_refuse_what_is_out_of_range(engine):
    out, terminal, _ = talk(
        engine,
        "/temperature 0",
        "/temperature 9",
        "/topk 0",
        "/topk 7",
        "/topk x",
        "/system Be brief.",
        "/no",
    )
    settings = terminal.settings
    assert (settings.temperature, settings.top_k, settings.system) == (0.0, 7, "Be brief.")
    assert "from 0.0 to 2.0" in out and "top_k: 0\n" in out and "no command /no" in out
    assert talk(engine, "/system -", system="x")[1].settings.system == ""


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


def test_what_no_longer_fits_is_forgotten_and_said(engine):
    out, terminal, _ = talk(engine, "x" * 40, "y" * 40)
    assert "2 messages no longer fit" in out
    assert terminal.messages[0].content == "y" * 40
    out, terminal, _ = talk(engine, "z" * 200)
    assert "shorten the message" in out and terminal.messages == []


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


def test_the_help_of_both_programs_needs_no_jax():
    import subprocess

    for program in ("chat_cli", "chat_web"):
        code = (
            f"import sys; sys.argv=['x']; from scripts import {program}; "
            f"assert 'jax' not in sys.modules; {program}.main(['--help'])"
        )
        run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        assert run.returncode == 0 and "--temperature" in run.stdout, run.stderr
