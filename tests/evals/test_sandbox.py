"""A program runs in a process of its own, and its result says how it ended."""

import pytest

from nanochat_jax.evals import sandbox
from nanochat_jax.evals.jail import seccomp
from tests.evals import programs


def test_a_program_that_ends_well_succeeds_and_its_output_is_kept():
    code = "import sys\nprint('ü')\nprint('e', file=sys.stderr)"
    result = sandbox.run_python(code)
    assert (result.success, result.stdout, result.stderr) == (True, "ü\n", "e\n")
    assert result.error is None and not result.timeout and 0 <= result.seconds < 5


@pytest.mark.parametrize(
    ("code", "error"),
    [
        ("1/0", "ZeroDivisionError: division by zero"),
        ("def broken(:", "SyntaxError"),
        ("input()", "EOFError"),
        ("raise SystemExit(0)", "SystemExit: 0"),
        ("import os\nos.system('true')", "TypeError"),
        ("import os\nos.abort()", "killed by signal"),
        ("class E(Exception):\n def __str__(self): 1/0\nraise E", "E"),
        ("import numpy", "ModuleNotFoundError"),
        ("import nanochat_jax", "ModuleNotFoundError"),
    ],
)
def test_a_program_that_fails_says_why(code, error):
    result = sandbox.run_python(code)
    assert not result.success and error in result.error


@pytest.mark.parametrize("code", ["raise SystemExit(0)", "import os\nos._exit(0)", "exit = 1"])
def test_exit_code_0_is_success_only_by_the_current_rules(code):
    assert sandbox.run_python(code, rules="current").success
    assert sandbox.run_python(code).success == (code == "exit = 1")


@pytest.mark.parametrize("code", ["raise SystemExit(3)", "import os\nos._exit(3)", "1/0"])
def test_another_exit_code_is_failure_by_any_rules(code):
    assert not sandbox.run_python(code, rules="current").success


def test_only_the_current_rules_run_what_is_meant_for_main():
    code = "if __name__ == '__main__':\n    1/0"
    assert sandbox.run_python(code).success
    assert not sandbox.run_python(code, rules="current").success


def test_many_programs_come_back_in_order():
    results = programs.run_many([f"print({i})" for i in range(12)], workers=3)
    assert [r.stdout for r in results] == [f"{i}\n" for i in range(12)]


@pytest.mark.parametrize(
    "wrong", [{"timeout_s": 0}, {"memory_bytes": -1}, {"rules": "old"}, {"layers": ["walls"]}]
)
def test_wrong_settings_are_named(wrong):
    with pytest.raises(ValueError, match=str(*wrong)):
        sandbox.run_python("", **wrong)


def test_what_does_not_hold_is_named():
    assert sandbox.missing(()) == ("network", "files", "processes")
    assert sandbox.missing(("seccomp",)) == ("files",)
    assert sandbox.missing(("namespaces",)) == ()
    assert sandbox.run_python("", layers=()).missing == ("network", "files", "processes")


def test_a_program_is_cut_at_the_last_definition_of_what_it_calls():
    program = "def check(c): pass\ndef f(): pass\n\nM = {}\ndef check(c):\n    c()\ncheck(f)\n"
    code, tests = sandbox.split(program)
    assert code + tests == program and tests.startswith("def check(c):\n    c()")
    assert sandbox.split("x = 1\nprint(x)") == ("x = 1\nprint(x)", "")


def test_the_call_filter_lets_nothing_through_by_another_machine_s_numbers():
    for name in seccomp.AUDIT_ARCH:
        lines = seccomp.rules(name, 1)
        assert len(lines) < 4096 and lines[-1] == (seccomp.RETURN, 0, 0, seccomp.ALLOW)
        assert (seccomp.RETURN, 0, 0, seccomp.KILL) in lines
