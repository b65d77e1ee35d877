"""Programs asked to stop: in time wherever they are, in order, with one line."""

import signal
import subprocess
import sys
import time

import pytest

# No Python runs in the main thread meanwhile, as in a compiler, and others may run.
BUSY = 'hashlib.pbkdf2_hmac("sha256", b"", b"", 10**9)'
BEGIN = """
import hashlib, sys, time
from nanochat_jax import stopping
def begun(): print("begun", flush=True)
"""
AT_ONCE = """
with stopping.at_once():
    try:
        begun(); {}
    finally:
        print("closed")
"""
IN_ORDER = """
def work(): begun(); {work}
with stopping.at_once(), stopping.in_order() as stop:
    try:
        stop.run(work)
    except stopping.Interrupted:
        {save}
        print("saved", flush=True)
        raise
"""


def ended(program, *signals, apart=0.0):
    """(exit code, seconds from the last signal, stdout, stderr) of a program, once begun."""
    pipes = dict(stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    process = subprocess.Popen([sys.executable, "-c", BEGIN + program], **pipes)
    assert process.stdout.readline() == "begun\n"
    sent = time.monotonic()
    for number in signals:
        process.send_signal(number)
        sent = time.monotonic()
        time.sleep(apart)
    out, errors = process.communicate(timeout=60)
    return process.returncode, time.monotonic() - sent, out, errors


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("work", ["time.sleep(60)", BUSY])
def test_a_program_ends_at_once_with_one_line(number, work):
    code, seconds, out, errors = ended(AT_ONCE.format(work), number)
    assert code == 128 + number and seconds < 8
    assert out == "closed\n" or work == BUSY  # that one is not waited for
    assert errors.split("\n") == ["", f"stopped by {number.name}", ""]


# C code may hold what is raised there, print it, and end the process at a SystemExit.
IMPORTING = """
import pathlib, sys, tempfile
folder = tempfile.mkdtemp()
pathlib.Path(folder, "slow_module.py").write_text("import time\\ntime.sleep(60)\\n")
sys.path.insert(0, folder)
"""
COLLECTING = """
import gc
def _xla_gc_callback(*_): time.sleep(60)
gc.callbacks.append(_xla_gc_callback)
"""


@pytest.mark.parametrize(
    ("before", "work"), [(IMPORTING, "import slow_module"), (COLLECTING, "gc.collect()")]
)
def test_where_an_exception_would_be_swallowed_it_ends_with_one_line_too(before, work):
    code, seconds, _, errors = ended(before + AT_ONCE.format(work), signal.SIGINT)
    assert code == 130 and seconds < 2
    assert errors.split("\n") == ["", "stopped by SIGINT", ""]


@pytest.mark.parametrize("work", ["time.sleep(60)", BUSY])
def test_what_is_under_way_is_given_up_and_then_saved(work):
    code, seconds, out, errors = ended(IN_ORDER.format(work=work, save=""), signal.SIGTERM)
    assert (code, out) == (143, "saved\n") and seconds < 8
    assert "SIGTERM: stopping" in errors and "Traceback" not in errors


def test_a_second_signal_ends_a_save_too():
    program = IN_ORDER.format(work="time.sleep(60)", save=BUSY)
    two = signal.SIGTERM, signal.SIGINT
    code, _, out, errors = ended(program, *two, apart=0.8)
    assert (code, out) == (130, "")
    assert "ended at once" in errors and "Traceback" not in errors


def test_one_request_that_comes_twice_is_one():
    code, _, out, _ = ended(
        IN_ORDER.format(work="time.sleep(60)", save="time.sleep(1)"), signal.SIGTERM, signal.SIGTERM
    )
    assert (code, out) == (143, "saved\n")


def test_work_beside_gives_its_result_and_its_error():
    program = """
with stopping.in_order() as stop:
    assert stop.run(lambda: 3) == 3
    try:
        stop.run(lambda: 1 / 0)
    except ZeroDivisionError as error:
        begun()
"""
    assert ended(program)[0] == 0


def test_a_program_that_fails_waits_for_no_thread():
    program = """
import threading
threading.Thread(target=time.sleep, args=(60,)).start()
def main(argv): begun(); print("error: full", file=sys.stderr); raise SystemExit(2)
stopping.run(main)
"""
    code, seconds, _, errors = ended(program)
    assert (code, errors) == (2, "error: full\n") and seconds < 30
