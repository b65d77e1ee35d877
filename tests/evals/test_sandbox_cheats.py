"""A program cannot pass its tests without their last line having run.

`pytest -s tests/evals/test_sandbox_cheats.py` prints how each cheat ended.
"""

import pytest

from nanochat_jax.evals import sandbox

TESTS = "\n\ndef check(candidate):\n    assert abs(candidate(2) - 4) < 1e-6\n\ncheck(double)"
CHEATS = {
    "exit in the solution": "import sys\ndef double(x): sys.exit(0)",
    "exit at once": "import os\nos._exit(0)",
    "exit at import": "raise SystemExit",
    "its own check": "def double(x): return 0\ndef check(candidate): pass",
    "tests swallowed": "def double(x): return 0\ndef check(c): pass\ny = '''",
    "builtins replaced": "import builtins\nbuiltins.abs = lambda x: 0\ndef double(x): return 0",
    "builtins by name": "__builtins__.abs = lambda x: 0\ndef double(x): return 0",
    "a name of its own": "def double(x): return 0\n__builtins__ = {'abs': lambda x: 0}",
    "AssertionError replaced": (
        "import builtins\nbuiltins.AssertionError = type('E', (BaseException,), {})\n"
        "def double(x): return 0"
    ),
    "a tracer": (
        "import sys, os\ndef trace(frame, *_):\n    if frame.f_code.co_name == 'check':"
        " os._exit(0)\n    return trace\nsys.settrace(trace)\ndef double(x): return 0"
    ),
    "a hook on exceptions": (
        "import sys, os\nsys.excepthook = lambda *a: os._exit(0)\ndef double(x): return 0"
    ),
    "at exit": "import atexit, os\natexit.register(os._exit, 0)\ndef double(x): return 0",
    "an alarm": (
        "import signal, os, time\nsignal.signal(signal.SIGALRM, lambda *a: os._exit(0))\n"
        "signal.setitimer(signal.ITIMER_REAL, 0.05)\n"
        "def double(x):\n    time.sleep(1)\n    return 0"
    ),
    "a thread that ends it": (
        "import threading, os\nthreading.Timer(0.05, os._exit, (0,)).start()\n"
        "import time\ndef double(x):\n    time.sleep(1)\n    return 0"
    ),
    "a thread that replaces check": (
        "import threading, sys\nsys.setswitchinterval(1e-6)\nspace = globals()\n"
        "def swap():\n    while True: space['check'] = lambda c: None\n"
        "threading.Thread(target=swap, daemon=True).start()\ndef double(x): return 0"
    ),
    "os replaced": (
        "import os, json\nos.write = lambda *a: 1\nos.read = lambda *a: b''\n"
        "os._exit = lambda c: None\njson.dumps = lambda *a: '{}'\ndef double(x): return 0"
    ),
    "claims on every pipe": (
        "import os\nfor fd in range(1, 64):\n"
        "    for text in (b'{\"proved\": true}', b'R', b'\\0'*16):\n"
        "        try: os.write(fd, text)\n        except OSError: pass\ndef double(x): return 0"
    ),
    "streams that swallow": (
        "import sys\nclass S:\n    def flush(self): raise SystemExit(0)\n    write = print\n"
        "sys.stdout = sys.stderr = S()\ndef double(x): return 0"
    ),
}


@pytest.mark.parametrize("cheat", CHEATS)
def test_a_cheat_does_not_pass(cheat):
    result = sandbox.run_python(CHEATS[cheat] + TESTS, checks=True, timeout_s=3.0)
    print(f"| {cheat} | {result.error} | {result.seconds:.3f} |")
    assert not result.success


def test_an_honest_solution_passes_the_same_tests():
    assert sandbox.execute("def double(x):\n    return 2 * x" + TESTS)
    assert not sandbox.execute("def double(x):\n    return x" + TESTS)


def test_tests_see_what_the_program_defined():
    code = "import math\nK = 2\ndef half(x): return x / K\n\n"
    tests = "def check(c):\n    assert c(4) == K\n    math.sqrt(4)\n\ncheck(half)"
    assert sandbox.execute(code + tests)
