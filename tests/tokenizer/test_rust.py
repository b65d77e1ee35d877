"""The Rust side has tests of its own: both engines split alike, ties, overlaps, long runs."""

import subprocess
from pathlib import Path

import pytest

CRATE = Path(__file__).resolve().parents[2] / "rustbpe"


@pytest.mark.slow
def test_the_tests_of_the_crate_pass():
    done = subprocess.run(
        ["cargo", "test", "--release"], cwd=CRATE, capture_output=True, text=True, timeout=280
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "0 failed" in done.stdout
