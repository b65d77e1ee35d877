"""Runs one program and proves that it came to its last line.

The proof is a number that arrives by a pipe and is read when the last line has run: leaving early
by any way, an exit code of 0 included, shows none. All that is needed afterwards is held here
before the program starts, so that what it replaces in modules is not used.
"""

import builtins
import json
import os
import sys
from typing import Any

PROOF_BYTES = 16
MESSAGE_CHARACTERS = 2000
OUT_OF_MEMORY = b'{"memory": true, "error": "MemoryError"}'


def run(code: str, tests: str, main: bool, report: int, proof: int) -> None:
    """Runs `code`, then `tests` with what it defined; reports and ends the process.

    Args:
        tests: run with builtins as they were before `code`, without its tracers.
        main: whether the program is called `__main__`.
        report, proof: the pipes to write the outcome to and to read the number from.
    """
    leave, write, read, dump = os._exit, os.write, os.read, json.dumps
    streams = (sys.stdout, sys.stderr)
    outcome = _outcome(code, tests, "__main__" if main else "builtins")
    for stream in streams:
        try:
            stream.flush()
        except BaseException:  # its own buffer may be gone; what was written before stays
            outcome = outcome or {"error": "the output could not be written"}
    try:
        text = dump(outcome).encode() if outcome else read(proof, PROOF_BYTES)
    except BaseException:
        text = OUT_OF_MEMORY
    write(report, text)
    leave(1 if outcome else 0)


def _outcome(code: str, tests: str, name: str) -> dict[str, Any]:
    """What went wrong, empty when nothing did."""
    # A program that replaces `print`, `isinstance` or `AssertionError` must not reach its tests.
    pristine = dict(vars(builtins))
    untrace = (sys.settrace, sys.setprofile)
    namespace = {"__name__": name, "__builtins__": builtins}
    build = lambda text, where: compile(text, where, "exec", dont_inherit=True, optimize=0)
    try:
        exec(build(code, "<program>"), namespace)
        if tests:
            for function in untrace:
                function(None)
            # A copy: threads of the program do not see the tests' own names.
            exec(build(tests, "<tests>"), namespace | {"__builtins__": pristine})
    except MemoryError as error:
        return {"memory": True, "error": _message(error)}
    except SystemExit as error:
        return {"exit": error.code in (None, 0), "error": _message(error)}
    except BaseException as error:
        return {"error": _message(error)}
    return {}


def _message(error: BaseException) -> str:
    """`Type: message`; the message is the program's own code and may fail too."""
    try:
        return f"{type(error).__name__}: {error}"[:MESSAGE_CHARACTERS]
    except BaseException:
        return type(error).__name__
